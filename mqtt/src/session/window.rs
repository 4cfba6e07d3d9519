//! How much may be in flight.

use crate::codec::QoS;

/// Room for publishes in flight.
///
/// ```
/// use qproxy_mqtt::{QoS, session::WindowFree};
///
/// let mut free = WindowFree {
///     acknowledged: 2,
///     exactly_once: 1,
/// };
/// assert!(free.take(QoS::ExactlyOnce));
/// assert!(!free.take(QoS::ExactlyOnce));
/// assert!(free.take(QoS::AtLeastOnce));
/// assert!(free.take(QoS::AtMostOnce), "takes no room");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowFree {
    /// Of QoS 1 and 2 together.
    pub acknowledged: usize,
    /// Of QoS 2 among them.
    pub exactly_once: usize,
}

impl WindowFree {
    /// Takes room for one publish; whether there was any.
    pub fn take(&mut self, qos: QoS) -> bool {
        let (acknowledged, exactly_once) = match qos {
            QoS::AtMostOnce => (0, 0),
            QoS::AtLeastOnce => (1, 0),
            QoS::ExactlyOnce => (1, 1),
        };
        let fits = self.acknowledged >= acknowledged && self.exactly_once >= exactly_once;
        if fits {
            self.acknowledged -= acknowledged;
            self.exactly_once -= exactly_once;
        }
        fits
    }
}
