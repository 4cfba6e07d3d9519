//! The API's own counters, and the process's use of its machine, which is read when the page is asked for.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge as AnyGauge;

use super::resources::Usage;
use crate::metrics::{
    Counter, EncodeLabelSet, Family, Gauge, Histogram, Registry, duration_histogram,
};

/// A route of the API and the class of its answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    /// As in the router, e.g. `/api/records/{id}`; `other` for what is no route.
    route: String,
    /// The status.
    status: u16,
}

/// What the API counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<Route, Counter>,
    duration: Histogram,
    /// Open event streams.
    pub(super) event_streams: Gauge,
    /// Events that a slow client did not get.
    pub(super) events_skipped: Counter,
    cpu_percent: AnyGauge<f64, AtomicU64>,
    resident_bytes: Gauge,
    open_files: Gauge,
    network_received_bytes: Gauge,
    network_sent_bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: duration_histogram(),
            event_streams: Gauge::default(),
            events_skipped: Counter::default(),
            cpu_percent: AnyGauge::default(),
            resident_bytes: Gauge::default(),
            open_files: Gauge::default(),
            network_received_bytes: Gauge::default(),
            network_sent_bytes: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds the counters to the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.add(
            "api_requests",
            "Requests to the API by route and status.",
            &self.requests,
        );
        registry.add(
            "api_duration_seconds",
            "Time until an answer began.",
            &self.duration,
        );
        registry.add(
            "api_event_streams",
            "Open event streams.",
            &self.event_streams,
        );
        let skipped = "Events that clients were too slow for.";
        registry.add("api_events_skipped", skipped, &self.events_skipped);
        let cpu = "CPU time of this process, percent of one core.";
        registry.add("process_cpu_percent", cpu, &self.cpu_percent);
        let resident = "Memory of this process that is in RAM.";
        registry.add("process_resident_bytes", resident, &self.resident_bytes);
        registry.add(
            "process_open_files",
            "Open file descriptors.",
            &self.open_files,
        );
        let received = "Bytes received by the machine's network interfaces, loopback left out.";
        registry.add(
            "network_received_bytes",
            received,
            &self.network_received_bytes,
        );
        let sent = "Bytes sent by the machine's network interfaces, loopback left out.";
        registry.add("network_sent_bytes", sent, &self.network_sent_bytes);
    }

    pub(super) fn observe(&self, route: String, status: u16, elapsed: Duration) {
        self.requests.get_or_create(&Route { route, status }).inc();
        self.duration.observe(elapsed.as_secs_f64());
    }

    pub(super) fn set_usage(&self, usage: &Usage) {
        let signed = |value: Option<u64>| value.and_then(|v| i64::try_from(v).ok()).unwrap_or(0);
        self.cpu_percent.set(usage.cpu_percent.unwrap_or(0.0));
        self.resident_bytes.set(signed(usage.rss_bytes));
        self.open_files.set(signed(usage.open_files));
        self.network_received_bytes
            .set(signed(usage.network.map(|n| n.received_bytes)));
        self.network_sent_bytes
            .set(signed(usage.network.map(|n| n.sent_bytes)));
    }
}
