//! Counters of the proxies. Those on the path of every request are looked up once, not by label each time.

use std::time::Duration;

use crate::metrics::{Counter, Family, Gauge, Histogram, Registry, duration_histogram, label};
use crate::record::UpstreamFailure;

/// Counters of all proxies of a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) connections: Counter,
    pub(super) open: Gauge,
    pub(super) waited_for_slot: Counter,
    pub(super) accept_errors: Counter,
    pub(super) handshake_errors: Counter,
    pub(super) proxy_protocol_errors: Counter,
    pub(super) tls_reloads: Counter,
    pub(super) tls_reload_errors: Counter,
    pub(super) client_errors: Counter,
    pub(super) in_flight: Gauge,
    pub(super) retries: Counter,
    pub(super) upstream_connections: Counter,
    pub(super) upstream_waits: Counter,
    pub(super) upstream_busy: Counter,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) streams: Counter,
    pub(super) spliced: Counter,
    pub(super) destinations_forgotten: Counter,
    pub(super) certificates_minted: Counter,
    pub(super) certificates_forgotten: Counter,
    pub(super) certificates_refused: Counter,
    pub(super) passed_through: Counter,
    forward_refused: Family<label::Reason, Counter>,
    by_class: [Counter; 6],
    requests: Family<label::StatusClass, Counter>,
    durations: Histogram,
    upstream_failures: Family<label::Kind, Counter>,
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<label::StatusClass, Counter>::default();
        let counter = |class: &'static str| requests.get_or_create(&class.into()).clone();
        Self {
            connections: Counter::default(),
            open: Gauge::default(),
            waited_for_slot: Counter::default(),
            accept_errors: Counter::default(),
            handshake_errors: Counter::default(),
            proxy_protocol_errors: Counter::default(),
            tls_reloads: Counter::default(),
            tls_reload_errors: Counter::default(),
            client_errors: Counter::default(),
            in_flight: Gauge::default(),
            retries: Counter::default(),
            upstream_connections: Counter::default(),
            upstream_waits: Counter::default(),
            upstream_busy: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            streams: Counter::default(),
            spliced: Counter::default(),
            destinations_forgotten: Counter::default(),
            certificates_minted: Counter::default(),
            certificates_forgotten: Counter::default(),
            certificates_refused: Counter::default(),
            passed_through: Counter::default(),
            forward_refused: Family::default(),
            by_class: CLASSES.map(counter),
            requests,
            durations: duration_histogram(),
            upstream_failures: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds the counters to the page.
    pub fn register(&self, registry: &mut Registry) {
        self.register_forward_proxy(registry);
        registry.add(
            "proxy_connections",
            "Client connections accepted.",
            &self.connections,
        );
        registry.add(
            "proxy_open_connections",
            "Client connections open now.",
            &self.open,
        );
        let waited = "Times that the limit on connections made new clients wait.";
        registry.add("proxy_connection_limit", waited, &self.waited_for_slot);
        registry.add(
            "proxy_accept_errors",
            "Connections that could not be accepted.",
            &self.accept_errors,
        );
        registry.add(
            "proxy_handshake_errors",
            "TLS handshakes that failed.",
            &self.handshake_errors,
        );
        registry.add(
            "proxy_proxy_protocol_errors",
            "Connections without a PROXY protocol header where one is required.",
            &self.proxy_protocol_errors,
        );
        registry.add(
            "proxy_tls_reloads",
            "Times that a listener took changed certificates.",
            &self.tls_reloads,
        );
        registry.add(
            "proxy_tls_reload_errors",
            "Times that changed certificates were not usable, and the old ones stayed.",
            &self.tls_reload_errors,
        );
        registry.add(
            "proxy_client_errors",
            "Connections ended by bad HTTP from a client.",
            &self.client_errors,
        );
        registry.add(
            "proxy_requests",
            "HTTP requests by class of status; `none` had no response.",
            &self.requests,
        );
        registry.add(
            "proxy_request_duration_seconds",
            "From a request's head to its response's end.",
            &self.durations,
        );
        registry.add(
            "proxy_requests_in_flight",
            "HTTP requests being served.",
            &self.in_flight,
        );
        registry.add(
            "proxy_retries",
            "Requests sent again, as a pooled connection was stale.",
            &self.retries,
        );
        registry.add(
            "proxy_upstream_connections",
            "Connections made to upstreams.",
            &self.upstream_connections,
        );
        let waits =
            "Requests that waited, as their upstream had all the connections that it may have.";
        registry.add("proxy_upstream_waits", waits, &self.upstream_waits);
        let busy = "Those of them that were refused with 503.";
        registry.add("proxy_upstream_busy", busy, &self.upstream_busy);
        registry.add(
            "proxy_upstream_failures",
            "Failures of upstreams by kind.",
            &self.upstream_failures,
        );
        registry.add(
            "proxy_bytes_in",
            "Content bytes from clients.",
            &self.bytes_in,
        );
        registry.add(
            "proxy_bytes_out",
            "Content bytes to clients.",
            &self.bytes_out,
        );
        registry.add(
            "proxy_streams",
            "TCP connections and upgraded connections carried.",
            &self.streams,
        );
        registry.add(
            "proxy_spliced_streams",
            "TCP connections that the kernel carries by itself, as no copy is made of them.",
            &self.spliced,
        );
    }

    fn register_forward_proxy(&self, registry: &mut Registry) {
        registry.add(
            "proxy_forward_refused",
            "Requests to a forward proxy that it did not serve, by reason.",
            &self.forward_refused,
        );
        registry.add(
            "proxy_tunnels_passed_through",
            "Tunnels that were not looked into though there is an authority to do it with.",
            &self.passed_through,
        );
        registry.add(
            "proxy_destinations_forgotten",
            "Hosts whose idle connections went, as a forward proxy keeps them for so many hosts only.",
            &self.destinations_forgotten,
        );
        registry.add(
            "proxy_certificates_minted",
            "Certificates made for hosts whose tunnels are decrypted.",
            &self.certificates_minted,
        );
        registry.add(
            "proxy_certificates_forgotten",
            "Made certificates that went, as so many are kept only.",
            &self.certificates_forgotten,
        );
        registry.add(
            "proxy_certificates_refused",
            "Handshakes that ended because the client does not take a made certificate.",
            &self.certificates_refused,
        );
    }

    /// A forward proxy did not serve a request.
    pub(super) fn forward_refused(&self, reason: &'static str) {
        self.forward_refused.get_or_create(&reason.into()).inc();
    }

    /// A request is done; `status` 0 where there was no response.
    pub(super) fn served(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).min(CLASSES.len() - 1);
        self.by_class[class].inc();
        self.durations.observe(took.as_secs_f64());
    }

    pub(super) fn upstream_failed(&self, failure: UpstreamFailure) {
        let kind = failure.as_str().into();
        self.upstream_failures.get_or_create(&kind).inc();
    }
}
