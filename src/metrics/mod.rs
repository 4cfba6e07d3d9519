//! The registry of all counters and the page that shows them.
//!
//! Each module owns its counters in a struct called `Metrics` with a `register(&mut Registry)`; this module
//! only collects and prints. Labels have few values: never a path, an address or an id.

pub mod label;

pub use prometheus_client::encoding::EncodeLabelSet;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Metric;

/// The media type of [`Registry::text`] (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of this process, under the prefix `qproxy_`.
#[derive(Debug)]
pub struct Registry(prometheus_client::registry::Registry);

impl Default for Registry {
    fn default() -> Self {
        Self(prometheus_client::registry::Registry::with_prefix("qproxy"))
    }
}

impl Registry {
    /// Adds a metric; counters get the suffix `_total` on the page by themselves.
    pub fn add(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        self.0
            .register(name, help.trim_end_matches('.'), metric.clone());
    }

    /// The page of all metrics in OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.0)
            .expect("formatting into a string cannot fail");
        page
    }
}

/// Buckets for durations in seconds: 0.1 ms to 105 s, each twice the one before.
#[must_use]
pub fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 21))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_shows_what_was_counted() {
        let mut registry = Registry::default();
        let dropped = Family::<label::Reason, Counter>::default();
        registry.add("dropped", "Copies dropped.", &dropped);
        dropped.get_or_create(&"oversize".into()).inc_by(3);
        let page = registry.text();
        assert!(
            page.contains("qproxy_dropped_total{reason=\"oversize\"} 3"),
            "{page}"
        );
        assert!(page.ends_with("# EOF\n"));
    }
}
