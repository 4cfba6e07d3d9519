//! What tests share: a scripted MQTT peer, a real Mosquitto, and waiting without sleeping blindly.

pub(crate) mod mosquitto;
pub(crate) mod mqtt_peer;

use std::future::Future;
use std::time::Duration;

/// Longest wait for anything in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `holds` says so.
///
/// # Panics
/// It does not within [`PATIENCE`].
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let polling = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, polling).await;
    assert!(result.is_ok(), "{what}: not within {PATIENCE:?}");
}

/// Awaits a future, but not for ever.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
