//! How many HTTP/1.1 connections an endpoint may have, and the queue of the requests that wait for one.
//!
//! A place belongs to an exchange, an idle connection has none. Only who has a place opens a connection, and
//! only once idle ones leave room for it; so there are never more connections than places.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::Config;

/// The places of one endpoint.
#[derive(Default)]
pub(super) struct Places(Option<Limited>);

struct Limited {
    /// Serves those who wait in the order in which they came.
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    patience: Duration,
}

/// A place for one exchange; it is free again when this is dropped.
#[derive(Default)]
pub(in super::super) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many wait already.
    Queue,
    /// None became free in time.
    Late,
}

impl Full {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "too many requests wait for one",
            Self::Late => "none became free in time",
        }
    }
}

/// One that waits; also where it gives up, as its client has gone.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Places {
    pub(super) fn new(config: &Config) -> Self {
        Self(config.max_upstream_connections.map(|most| Limited {
            free: Arc::new(Semaphore::new(most)),
            waiting: AtomicUsize::new(0),
            max_waiting: config.max_waiting,
            patience: config.response_timeout,
        }))
    }

    /// A place, where nobody has to wait for one.
    pub(super) fn try_take(&self) -> Option<Place> {
        let Some(limited) = &self.0 else {
            return Some(Place::default());
        };
        let permit = Arc::clone(&limited.free).try_acquire_owned().ok()?;
        Some(Place {
            _permit: Some(permit),
        })
    }

    /// Waits for a place, after those that came before.
    pub(super) async fn wait(&self) -> Result<Place, Full> {
        let Some(limited) = &self.0 else {
            return Ok(Place::default());
        };
        let before = limited.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&limited.waiting);
        if before >= limited.max_waiting {
            return Err(Full::Queue);
        }
        let permit = Arc::clone(&limited.free).acquire_owned();
        match tokio::time::timeout(limited.patience, permit).await {
            Ok(Ok(permit)) => Ok(Place {
                _permit: Some(permit),
            }),
            Ok(Err(_)) | Err(_) => Err(Full::Late),
        }
    }

    /// Whether a request would not have to wait.
    pub(super) fn has_room(&self) -> bool {
        let free = |limited: &Limited| limited.free.available_permits() > 0;
        self.0.as_ref().is_none_or(free)
    }

    /// Whether so many idle connections leave no room for another one.
    pub(super) fn crowded(&self, idle: usize) -> bool {
        let free = |limited: &Limited| limited.free.available_permits();
        self.0.as_ref().is_some_and(|limited| idle > free(limited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: usize, max_waiting: usize) -> Arc<Places> {
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), "shop");
        config.max_upstream_connections = Some(most);
        config.max_waiting = max_waiting;
        Arc::new(Places::new(&config))
    }

    #[tokio::test]
    async fn who_came_first_is_served_first() {
        let places = places(1, 100);
        let first = places.try_take().unwrap();
        let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..20 {
            let (waits, served) = (Arc::clone(&places), served.clone());
            tokio::spawn(async move {
                let _place = waits.wait().await.unwrap();
                served.send(number).unwrap();
            });
            // Until it stands in the queue.
            while places.0.as_ref().unwrap().waiting.load(Relaxed) <= number {
                tokio::task::yield_now().await;
            }
        }
        assert!(places.try_take().is_none());
        drop(first);
        for number in 0..20 {
            assert_eq!(order.recv().await, Some(number));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_in_length_and_time() {
        let places = places(1, 1);
        let place = places.try_take().unwrap();
        let (late, refused) = tokio::join!(places.wait(), places.wait());
        assert_eq!(late.err(), Some(Full::Late));
        assert_eq!(refused.err(), Some(Full::Queue));
        assert!(!places.has_room());
        drop(place);
        assert!(places.has_room() && places.wait().await.is_ok());
    }

    #[tokio::test]
    async fn one_that_gives_up_leaves_the_queue() {
        let places = places(1, 1);
        let place = places.try_take().unwrap();
        for _ in 0..3 {
            let mut waiting = Box::pin(places.wait());
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        drop(place);
        assert!(places.wait().await.is_ok());
    }

    #[test]
    fn idle_connections_count_as_far_as_places_are_free() {
        let places = places(3, 1);
        let held = (places.try_take(), places.try_take());
        assert!(!places.crowded(1) && places.crowded(2));
        drop(held);
        assert!(!places.crowded(3) && places.crowded(4));
        assert!(!Places::default().crowded(1_000_000));
    }
}
