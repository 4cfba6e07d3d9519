//! When to connect again, and when to stop.

use std::time::Duration;

/// Pauses between attempts to connect: they double up to a cap, and half of each is random.
///
/// ```
/// use std::time::Duration;
/// use qproxy_mqtt::options::Backoff;
///
/// let backoff = Backoff {
///     max: Duration::from_secs(5),
///     ..Backoff::default()
/// };
/// assert_eq!(backoff.initial, Duration::from_millis(500));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The first pause. Default 500 ms.
    pub initial: Duration,
    /// The longest pause. Default 30 s.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The pause before attempt `attempt` (from 0), with `random` spread over all of `u64`.
    pub(crate) fn pause(&self, attempt: u32, random: u64) -> Duration {
        let full = self
            .initial
            .saturating_mul(1 << attempt.min(20))
            .min(self.max);
        let half = full / 2;
        let share = random as f64 / u64::MAX as f64;
        half + half.mul_f64(share)
    }
}

/// Two clients with one id throw each other out for ever; this says when to stop instead.
///
/// A server of MQTT 5.0 says that the session was taken over, and only that counts. One of 3.1.1 says nothing: there
/// each close right after accepting counts, those of a server that crashes again and again too. Where that is the likelier
/// case, set `connections` to 0.
///
/// ```
/// use qproxy_mqtt::options::Takeover;
///
/// assert_eq!(Takeover::default().connections, 5);
/// let never_stops = Takeover {
///     connections: 0,
///     ..Takeover::default()
/// };
/// # assert_eq!(never_stops.within, Takeover::default().within);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Takeover {
    /// So many connections in a row, closed by the server. 0 never stops. Default 5.
    pub connections: u32,
    /// Each within this time after it was accepted. A connection that ends so soon for any other reason has the next
    /// of the `fallbacks` tried. Default 5 s.
    pub within: Duration,
}

impl Default for Takeover {
    fn default() -> Self {
        Self {
            connections: 5,
            within: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_half_is_random() {
        let backoff = Backoff::default();
        assert_eq!(backoff.pause(0, 0), Duration::from_millis(250));
        assert_eq!(backoff.pause(0, u64::MAX), Duration::from_millis(500));
        assert_eq!(backoff.pause(3, u64::MAX), Duration::from_secs(4));
        assert_eq!(backoff.pause(60, u64::MAX), Duration::from_secs(30));
    }
}
