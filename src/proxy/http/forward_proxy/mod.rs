//! Requests of clients that name their target themselves: with an absolute URL, or through a tunnel (CONNECT).
//!
//! ```text
//! GET http://host/     -> access -> outward: connections by host -> forwarded like any request
//! CONNECT host:port    -> access -> looked into?  no: dial, and pump both ways; the record is a stream's summary
//!                                   | yes: what does the client begin with?
//!                                   |-> TLS: a certificate for the host is made, and what is inside looked at again
//!                                   |-> HTTP: served as on any connection, towards that host
//!                                   `-> anything else, or the server speaks first: pumped as it is
//! ```
//!
//! On a listener that answers by itself nothing goes out: there tunnels are for HTTP alone.

mod config;
mod access;
mod outward;
mod first;
mod connect;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;
use parking_lot::Mutex;

use super::super::drain::Drain;
use super::super::lru::Lru;
use super::super::{Error, Metrics, tls};
use super::upstream::Upstreams;
use super::{Config, head};
use crate::capture::Capture;
use crate::service_discovery::Endpoint;

pub use config::{Credentials, ForwardProxy, Refused};
pub(super) use connect::{challenge, no_authority, serve};
pub(super) use outward::Outward;

use access::Access;

/// For how long a client's refusal of a host's certificate is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What a listener knows of forward proxying.
pub(super) struct Gate {
    config: ForwardProxy,
    access: Arc<Access>,
    authority: Option<tls::Authority>,
    /// Clients that do not take the certificate of a host, and since when.
    refusals: Mutex<Lru<(IpAddr, Arc<str>), Instant>>,
    /// `None` on a listener that answers by itself.
    outward: Option<Arc<Outward>>,
    handshake_timeout: Duration,
    head_timeout: Duration,
    metrics: Metrics,
}

/// Where what is inside a tunnel goes.
pub(super) struct Inside {
    /// `None` on a listener that answers by itself.
    pub(super) upstreams: Option<Arc<Upstreams>>,
    pub(super) service: Arc<str>,
}

/// A request to another host, in the form in which that host is to get it.
pub(super) struct Outbound {
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) service: Arc<str>,
    /// Its head as it came, without what is for the proxy.
    pub(super) sent: Option<Bytes>,
}

impl Gate {
    /// `None` where the listener is no forward proxy.
    pub(super) fn new(
        config: &Config,
        own: SocketAddr,
        capture: Option<Capture>,
        metrics: &Metrics,
        drain: &Drain,
    ) -> Result<Option<Arc<Self>>, Error> {
        let Some(forward) = &config.forward_proxy else {
            return Ok(None);
        };
        let access = Arc::new(Access::new(forward));
        let authority = forward.authority.as_ref().map(|files| {
            let most = forward.max_hosts;
            tls::Authority::new(files, first::OFFERED, most, metrics.clone())
        });
        let outward = capture.map(|capture| {
            let (access, metrics) = (Arc::clone(&access), metrics.clone());
            Outward::new(
                config,
                forward,
                access,
                own,
                capture,
                metrics,
                drain.clone(),
            )
        });
        Ok(Some(Arc::new(Self {
            config: forward.clone(),
            authority: authority.transpose()?,
            refusals: Mutex::new(Lru::new(forward.max_hosts)),
            outward: outward.transpose()?.map(Arc::new),
            access,
            handshake_timeout: config.handshake_timeout,
            head_timeout: config.head_timeout,
            metrics: metrics.clone(),
        })))
    }

    pub(super) fn outward(&self) -> Option<&Arc<Outward>> {
        self.outward.as_ref()
    }

    /// Makes of a request to another host one that the host can be sent, where the client may ask for it.
    /// `scheme` and `authority` are those of the request's target.
    pub(super) fn outbound(
        &self,
        parts: &mut Parts,
        [scheme, authority]: [&str; 2],
        sent: Option<&[u8]>,
    ) -> Result<Outbound, Error> {
        let admitted = self.access.admit(&parts.headers);
        let target = admitted.and_then(|()| {
            let target = access::absolute_target(scheme, authority)?;
            self.access.allow(&target)?;
            Ok(target)
        });
        let target = target?;
        let Some(outward) = &self.outward else {
            return Err(Error::Unsupported("this listener sends nothing out"));
        };
        // RFC 9112 section 3.2.2: the target's authority replaces Host.
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(host)
            .map_err(|_| Error::Request("the target's authority is no host"))?;
        let sent = sent.map(|sent| head::for_origin(sent, host.as_bytes()));
        parts.headers.insert(HOST, host);
        head::to_origin_form(parts)?;
        Ok(Outbound {
            upstreams: outward.upstreams(&target, None),
            service: outward.service(&target, None),
            sent,
        })
    }

    /// Counts and logs what was not served.
    pub(super) fn count(&self, error: &Error) {
        let reason = match error {
            Error::Credentials => "credentials",
            Error::Denied { .. } => "denied",
            Error::Loop { .. } => "loop",
            _ => "bad_request",
        };
        self.metrics.forward_refused(reason);
        tracing::info!(error = error.chain(), "forward proxy refused a request");
    }

    /// Whether a client's tunnel to a target is looked into, as far as its CONNECT tells.
    fn looks_into(&self, target: &Endpoint, client: IpAddr) -> bool {
        self.authority.is_some()
            && !self.access.passes_through(target)
            && !self.has_refused(client, target.host())
    }

    fn has_refused(&self, client: IpAddr, host: &Arc<str>) -> bool {
        if self.config.refused == Refused::Told {
            return false;
        }
        let mut refusals = self.refusals.lock();
        let since = refusals.get(&(client, Arc::clone(host)));
        since.is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    /// A client does not take our certificate for a host.
    fn refused(&self, client: SocketAddr, host: &Arc<str>, error: &std::io::Error) {
        self.metrics.certificates_refused.inc();
        match self.config.refused {
            Refused::Told => tracing::warn!(
                %client, host = &**host, %error,
                "a client does not take our certificate: have it trust the authority (`qproxy ca export`), or name \
                 the host in `http.forward_proxy.passthrough_hosts`"
            ),
            Refused::PassedThrough => {
                tracing::warn!(
                    %client, host = &**host, %error,
                    "a client does not take our certificate: its tunnels to that host pass through for an hour"
                );
                let refusal = (client.ip(), Arc::clone(host));
                self.refusals.lock().put(refusal, Instant::now());
            }
        }
    }
}
