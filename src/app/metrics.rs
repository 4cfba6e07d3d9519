//! The counters of every module, on one page.

use super::unfinished;
use crate::metrics::{Counter, Family, Registry, label};
use crate::{api, capture, playback, proxy, service_discovery, spool, store, sync};

/// Every module's counters.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    pub(super) service_discovery: service_discovery::Metrics,
    pub(super) capture: capture::Metrics,
    pub(super) proxy: proxy::Metrics,
    pub(super) spool: spool::Metrics,
    pub(super) store: store::Metrics,
    pub(super) sync: sync::Metrics,
    pub(super) playback: playback::Metrics,
    pub(super) api: api::Metrics,
    pub(super) unfinished: unfinished::Metrics,
    /// Results of replays that found no room on the way to the broker.
    pub(super) unpublished: Counter,
    /// How often a part on the bus ended by itself and was started again, by part.
    pub(super) restarts: Family<label::Part, Counter>,
}

impl Metrics {
    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.service_discovery.register(&mut registry);
        self.capture.register(&mut registry);
        self.proxy.register(&mut registry);
        self.spool.register(&mut registry);
        self.store.register(&mut registry);
        self.sync.register(&mut registry);
        self.playback.register(&mut registry);
        self.api.register(&mut registry);
        self.unfinished.register(&mut registry);
        let help = "Results of replays that found no room on the way to the broker";
        registry.add("replay_results_unpublished", help, &self.unpublished);
        let help = "Parts on the bus that ended by themselves and were started again";
        registry.add("part_restarts", help, &self.restarts);
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_base_units() {
        let page = Metrics::default().registry().text();
        let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut seen = 0;
        for name in names {
            seen += 1;
            let small = ["micros", "millis", "nanos", "_us ", "_ms ", "kilo", "mega"];
            assert!(!small.iter().any(|unit| name.contains(unit)), "{name}");
        }
        assert!(seen > 80, "{seen}");
        assert!(page.contains("qproxy_capture_encode_seconds_total 0"));
    }
}
