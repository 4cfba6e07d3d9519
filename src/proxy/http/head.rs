//! What a reverse proxy does to heads: drop hop-by-hop fields, find the target, name the host. Pure.
//!
//! HTTP/2 requests are brought to the form of HTTP/1.1 first (RFC 9113 section 8.3.1), which is also how they
//! are recorded, and into theirs again where the upstream speaks HTTP/2.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::ext::Protocol;

use super::super::Error;
use super::{Forwarded, Host};
use crate::record::accept_key;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The name of WebSocket in `Upgrade` and in `:protocol`.
const WEB_SOCKET: &str = "websocket";

/// Whether the connection is to become something else after this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Plain HTTP.
    Exchange,
    /// `Connection: upgrade` (RFC 9110 section 7.8).
    Upgrade,
}

/// Where a request goes, and what the upstream is told of the client.
pub(super) struct Route<'a> {
    pub(super) path_prefix: &'a str,
    pub(super) authority: &'a HeaderValue,
    pub(super) host: Host,
    pub(super) forwarded: Forwarded,
    pub(super) client: IpAddr,
    pub(super) scheme: &'static str,
}

/// Makes of a request that came over HTTP/2 one with a path for a target, a `Host`, and one `Cookie`; of an
/// extended CONNECT for WebSocket (RFC 8441 section 4) the upgrade that it is over HTTP/1.1, but for its key.
pub(super) fn from_http2(head: &mut http::request::Parts) -> Result<(), Error> {
    if head.method == Method::CONNECT {
        let protocol = head.extensions.get::<Protocol>();
        if !protocol.is_some_and(|name| name.as_str().eq_ignore_ascii_case(WEB_SOCKET)) {
            return Ok(());
        }
        head.method = Method::GET;
        upgrading(&mut head.headers);
    }
    if let Some(authority) = head.uri.authority() {
        let authority = authority.as_str();
        let differs =
            |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
        if head.headers.get_all(HOST).iter().any(differs) {
            return Err(Error::Request(
                "the request's :authority and Host differ (RFC 9113 section 8.3.1)",
            ));
        }
        let host = HeaderValue::from_str(authority)
            .map_err(|_| Error::Request("the target's authority is no host"))?;
        head.headers.insert(HOST, host);
    }
    let path = head.uri.path_and_query().cloned();
    head.uri = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    join_cookies(&mut head.headers)
}

/// Makes of a request for an upgrade to WebSocket, in the form of HTTP/1.1, an extended CONNECT.
pub(super) fn to_extended_connect(
    head: &mut http::request::Parts,
    scheme: http::uri::Scheme,
) -> Result<(), Error> {
    head.headers.remove(SEC_WEBSOCKET_KEY);
    head.headers.remove(UPGRADE);
    head.method = Method::CONNECT;
    head.extensions.insert(Protocol::from_static(WEB_SOCKET));
    to_http2(head, scheme)
}

/// Makes of what accepts an extended CONNECT the 101 that it is over HTTP/1.1; `key` is the client's.
pub(super) fn accepted(head: &mut http::response::Parts, key: Option<&HeaderValue>) {
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    upgrading(&mut head.headers);
    let accept = key.map(|key| accept_key(key.as_bytes()));
    if let Some(accept) = accept.and_then(|accept| HeaderValue::try_from(accept).ok()) {
        head.headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
}

/// Makes of a 101 what accepts an extended CONNECT.
pub(super) fn to_http2_client(head: &mut http::response::Parts) {
    head.status = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, CONTENT_LENGTH] {
        head.headers.remove(name);
    }
}

/// Whether the upgrade that is asked for, or granted, is to WebSocket.
pub(super) fn is_web_socket(headers: &HeaderMap) -> bool {
    let mut offers = headers.get_all(UPGRADE).iter();
    offers.any(|offer| lists(offer, WEB_SOCKET))
}

fn upgrading(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEB_SOCKET));
}

/// A request as HTTP/1.1 has it, as far as that can be done: for who answers and asks nobody.
pub(super) fn normal<B>(request: http::Request<B>) -> http::Request<B> {
    if request.version() != Version::HTTP_2 {
        return request;
    }
    let (mut parts, body) = request.into_parts();
    if let Err(error) = from_http2(&mut parts) {
        tracing::debug!(%error, "a request keeps its form");
    }
    http::Request::from_parts(parts, body)
}

/// HTTP/2 may send the cookies of a request one by one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Error> {
    let mut cookies = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return Ok(());
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined)
        .map_err(|_| Error::Request("the request's cookies make no field"))?;
    headers.insert(COOKIE, joined);
    Ok(())
}

/// Makes of an upstream's request one for HTTP/2: the host becomes `:authority`, and `TE` needs no
/// `Connection` (RFC 9113 sections 8.2.2 and 8.3.1).
pub(super) fn to_http2(
    head: &mut http::request::Parts,
    scheme: http::uri::Scheme,
) -> Result<(), Error> {
    let host = head.headers.remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = authority.ok_or(Error::Request("the request's Host is no host"))?;
    let path = head.uri.path_and_query().cloned();
    let mut target = http::uri::Parts::default();
    target.scheme = Some(scheme);
    target.authority = Some(authority);
    target.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
    head.uri = Uri::from_parts(target).map_err(|_| Error::Request("the target is no path"))?;
    head.headers.remove(CONNECTION);
    head.version = Version::HTTP_2;
    Ok(())
}

/// Refuses what no server has to take.
pub(super) fn check(head: &http::request::Parts) -> Result<Use, Error> {
    if head.method == Method::CONNECT {
        return Err(Error::Unsupported(
            "this is a reverse proxy, it does not open tunnels with CONNECT (`http.forward_proxy` would)",
        ));
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Error::Request(
            "the request has more than one Host (RFC 9112 section 3.2)",
        ));
    }
    if first.is_none() && head.version >= Version::HTTP_11 {
        return Err(Error::Request(
            "the request has no Host (RFC 9112 section 3.2)",
        ));
    }
    if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH) {
        return Err(Error::Request(
            "the request has both Transfer-Encoding and Content-Length (RFC 9112 section 6.1)",
        ));
    }
    let upgrade = head.version == Version::HTTP_11
        && head.headers.contains_key(UPGRADE)
        && names(&head.headers, "upgrade")
        && !offers_h2c(&head.headers);
    let connect = head.extensions.get::<Protocol>().is_some();
    Ok(if upgrade || connect {
        Use::Upgrade
    } else {
        Use::Exchange
    })
}

/// Makes the upstream's request of the client's.
pub(super) fn to_upstream(
    head: &mut http::request::Parts,
    kind: Use,
    route: &Route<'_>,
) -> Result<(), Error> {
    match route.forwarded {
        Forwarded::Off => {}
        Forwarded::On => x_forwarded(&mut head.headers, route)?,
        Forwarded::Standard => forwarded(&mut head.headers, route)?,
    }
    // RFC 9112 section 3.2.2: the authority of an absolute target replaces Host.
    let absolute = head
        .uri
        .authority()
        .map(|authority| authority.as_str().to_owned());
    if let Some(authority) = &absolute {
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(authority)
            .map_err(|_| Error::Request("the target's authority is no host"))?;
        head.headers.insert(HOST, host);
    }
    if route.host == Host::Upstream || !head.headers.contains_key(HOST) {
        head.headers.insert(HOST, route.authority.clone());
    }
    if absolute.is_some() || !route.path_prefix.is_empty() {
        head.uri = target(&head.uri, route.path_prefix)?;
    }
    let trailers = head.headers.get(TE).is_some_and(|te| lists(te, "trailers"));
    let upgrade = (kind == Use::Upgrade)
        .then(|| head.headers.remove(UPGRADE))
        .flatten();
    strip(&mut head.headers);
    if trailers {
        head.headers
            .insert(TE, HeaderValue::from_static("trailers"));
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(upgrade) = upgrade {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, upgrade);
    }
    head.version = Version::HTTP_11;
    Ok(())
}

/// Makes of a request to a forward proxy one as its host gets it (RFC 9112 section 3.2.1): a path for a target, and
/// nothing that is for the proxy alone.
pub(super) fn to_origin_form(head: &mut http::request::Parts) -> Result<(), Error> {
    head.uri = target(&head.uri, "")?;
    let ours: Vec<_> = (head.headers.keys())
        .filter(|name| is_for_proxy(name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in ours {
        head.headers.remove(name);
    }
    Ok(())
}

/// The same with the fields of a head as they came; its first line stays.
pub(super) fn for_origin(sent: &[u8], host: &[u8]) -> Bytes {
    let mut kept = Vec::with_capacity(sent.len() + host.len());
    let mut named = false;
    for (at, line) in sent.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if at == 0 || !(is_for_proxy(name) || name.eq_ignore_ascii_case(b"host")) {
            kept.extend_from_slice(line);
        } else if !is_for_proxy(name) {
            named = true;
            kept.extend_from_slice(&[name, b": ", host, b"\r\n"].concat());
        }
    }
    if !named {
        // HTTP/1.0 may come without, and the host gets one.
        let end = kept.len().saturating_sub(2);
        kept.splice(end..end, [b"Host: ", host, b"\r\n"].concat());
    }
    kept.into()
}

fn is_for_proxy(name: &[u8]) -> bool {
    let start = name.first_chunk::<6>();
    start.is_some_and(|start| start.eq_ignore_ascii_case(b"proxy-"))
}

/// Makes the client's response of the upstream's.
pub(super) fn to_client(head: &mut http::response::Parts, kind: Use) {
    let upgrade = (kind == Use::Upgrade)
        .then(|| head.headers.remove(UPGRADE))
        .flatten();
    // RFC 9112 section 6.3: chunks override a length, which is wrong for the decoded content.
    if head.headers.contains_key(TRANSFER_ENCODING) {
        head.headers.remove(CONTENT_LENGTH);
    }
    strip(&mut head.headers);
    if let Some(upgrade) = upgrade {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, upgrade);
    }
    head.version = Version::HTTP_11;
}

/// What a client is told of an interim response (RFC 9110 section 15.2).
pub(super) fn interim(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(CONTENT_LENGTH);
    strip(&mut headers);
    headers
}

/// Whether the client waits for 100 before it sends its content (RFC 9110 section 10.1.1).
pub(super) fn expects_continue(head: &http::request::Parts) -> bool {
    let expect = head.headers.get(EXPECT);
    head.version == Version::HTTP_11 && expect.is_some_and(|expect| lists(expect, "100-continue"))
}

/// Removes what concerns one hop only (RFC 9110 section 7.6.1), and what `Connection` names.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        if headers.contains_key(&name) {
            headers.remove(name);
        }
    }
}

/// The fields that `Connection` names; what frames the message or says where it goes cannot be named away.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect()
}

fn names(headers: &HeaderMap, option: &str) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| lists(value, option))
}

/// A client that would rather speak HTTP/2 is content with HTTP/1.1: RFC 9113 section 3.1 removed this upgrade.
fn offers_h2c(headers: &HeaderMap) -> bool {
    let mut offers = headers.get_all(UPGRADE).iter();
    offers.any(|offer| lists(offer, "h2c"))
}

/// Whether a comma-separated list has an element, without case, parameters aside.
fn lists(value: &HeaderValue, element: &str) -> bool {
    value.to_str().is_ok_and(|list| {
        list.split(',').any(|item| {
            let name = item.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case(element)
        })
    })
}

fn target(uri: &Uri, prefix: &str) -> Result<Uri, Error> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = if prefix.is_empty() || path == "*" {
        path.parse::<PathAndQuery>()
    } else {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{prefix}{slash}{path}").parse()
    };
    let path = path.map_err(|_| Error::Request("the target is no path"))?;
    Ok(Uri::from(path))
}

/// Adds an element to `Forwarded` (RFC 7239 section 4).
fn forwarded(headers: &mut HeaderMap, route: &Route<'_>) -> Result<(), Error> {
    let client = match route.client {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.filter(|host| !host.contains(['"', '\\']));
    let host = host.map_or_else(String::new, |host| format!(";host=\"{host}\""));
    let element = format!("for={client}{host};proto={}", route.scheme);
    let element = HeaderValue::try_from(element)
        .map_err(|_| Error::Request("the request's Host makes no field"))?;
    headers.append(FORWARDED, element);
    Ok(())
}

fn x_forwarded(headers: &mut HeaderMap, route: &Route<'_>) -> Result<(), Error> {
    let value = |text: String| {
        HeaderValue::try_from(text).map_err(|_| Error::Request("X-Forwarded-For is no list"))
    };
    let known: Vec<_> = headers
        .get_all(&FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .chain([route.client.to_string()])
        .collect();
    headers.insert(FORWARDED_FOR, value(known.join(", "))?);
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    let scheme = HeaderValue::from_static(route.scheme);
    headers.entry(FORWARDED_PROTO).or_insert(scheme);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    static AUTHORITY: HeaderValue = HeaderValue::from_static("up:81");

    fn route(path_prefix: &str) -> Route<'_> {
        Route {
            path_prefix,
            authority: &AUTHORITY,
            host: Host::Preserve,
            forwarded: Forwarded::Off,
            client: [127, 0, 0, 1].into(),
            scheme: "http",
        }
    }

    fn head(uri: &str, fields: &[(&str, &str)]) -> http::request::Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn names_of(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn drops_hop_by_hop_fields_and_those_that_connection_names() {
        let mut head = head(
            "/",
            &[
                ("host", "a"),
                ("connection", "close, X-Secret, host, content-length"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "gzip"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("accept", "*/*"),
            ],
        );
        to_upstream(&mut head, Use::Exchange, &route("")).unwrap();
        assert_eq!(names_of(&head.headers), ["accept", "host"]);
    }

    #[test]
    fn keeps_te_trailers_and_upgrades() {
        let fields = [
            ("host", "a"),
            ("te", "deflate, Trailers;q=1"),
            ("connection", "te"),
        ];
        let mut request = head("/", &fields);
        to_upstream(&mut request, Use::Exchange, &route("")).unwrap();
        assert_eq!(request.headers["te"], "trailers");
        let fields = [
            ("host", "a"),
            ("connection", "Keep-Alive, Upgrade"),
            ("upgrade", "websocket"),
        ];
        let mut request = head("/", &fields);
        let kind = check(&request).unwrap();
        assert_eq!(kind, Use::Upgrade);
        to_upstream(&mut request, kind, &route("")).unwrap();
        assert_eq!(request.headers["upgrade"], "websocket");
        assert_eq!(request.headers["connection"], "upgrade");
    }

    #[test]
    fn finds_the_target_and_the_host() {
        for (uri, prefix, path, host) in [
            ("/a?b", "", "/a?b", "a"),
            ("/a?b", "/base", "/base/a?b", "a"),
            ("http://me@other:1/x", "", "/x", "other:1"),
            ("http://other", "/base", "/base/", "other"),
            ("*", "/base", "*", "a"),
        ] {
            let mut request = head(uri, &[("host", "a")]);
            to_upstream(&mut request, Use::Exchange, &route(prefix)).unwrap();
            assert_eq!(request.uri.to_string(), path);
            assert_eq!(request.headers["host"], host, "{uri}");
        }
    }

    #[test]
    fn http2_requests_take_the_form_of_http1_and_back() {
        let mut request = head(
            "https://shop.test/a?b",
            &[
                ("cookie", "a=1"),
                ("x", "1"),
                ("cookie", "b=2"),
                ("te", "trailers"),
            ],
        );
        request.version = Version::HTTP_2;
        from_http2(&mut request).unwrap();
        assert_eq!(request.uri.to_string(), "/a?b");
        assert_eq!(request.headers["host"], "shop.test");
        assert_eq!(request.headers["cookie"], "a=1; b=2");
        assert_eq!(request.headers.get_all("cookie").iter().count(), 1);
        assert_eq!(check(&request).unwrap(), Use::Exchange);
        to_upstream(&mut request, Use::Exchange, &route("/base")).unwrap();
        to_http2(&mut request, http::uri::Scheme::HTTP).unwrap();
        assert_eq!(request.uri.to_string(), "http://shop.test/base/a?b");
        assert_eq!(names_of(&request.headers), ["cookie", "te", "x"]);
    }

    #[test]
    fn http2_requests_whose_host_is_in_doubt_are_refused() {
        let mut request = head("https://shop.test/", &[("host", "other.test")]);
        assert!(from_http2(&mut request).is_err());
        let mut request = head("https://shop.test/", &[("host", "SHOP.test")]);
        assert!(from_http2(&mut request).is_ok());
        let mut request = head("/", &[("host", "a b")]);
        assert!(to_http2(&mut request, http::uri::Scheme::HTTP).is_err());
        let mut request = head("*", &[("host", "a")]);
        request.method = Method::OPTIONS;
        to_http2(&mut request, http::uri::Scheme::HTTP).unwrap();
        assert_eq!(request.uri.path(), "*");
    }

    #[test]
    fn a_host_sees_nothing_of_what_was_for_the_proxy() {
        let fields = [
            ("proxy-authorization", "Basic x"),
            ("accept", "*/*"),
            ("Proxy-Foo", "1"),
        ];
        let mut request = head("http://shop.test/a?b", &fields);
        to_origin_form(&mut request).unwrap();
        assert_eq!(request.uri.to_string(), "/a?b");
        assert_eq!(names_of(&request.headers), ["accept"]);
        let mut request = head("http://shop.test", &[]);
        to_origin_form(&mut request).unwrap();
        assert_eq!(request.uri.to_string(), "/");
        for (sent, kept) in [
            (
                "GET http://a/ HTTP/1.1\r\nHOST: b\r\nProxy-Authorization: Basic x\r\nX: 1\r\n\r\n",
                "GET http://a/ HTTP/1.1\r\nHOST: a\r\nX: 1\r\n\r\n",
            ),
            (
                "GET http://a/ HTTP/1.0\r\nproxy-connection: close\r\n\r\n",
                "GET http://a/ HTTP/1.0\r\nHost: a\r\n\r\n",
            ),
        ] {
            assert_eq!(for_origin(sent.as_bytes(), b"a"), kept.as_bytes());
        }
    }

    #[test]
    fn refuses_bad_hosts_and_connect() {
        assert!(check(&head("/", &[])).is_err());
        assert!(check(&head("/", &[("host", "a"), ("host", "a")])).is_err());
        let both = [
            ("host", "a"),
            ("content-length", "1"),
            ("transfer-encoding", "chunked"),
        ];
        assert!(check(&head("/", &both)).is_err());
        let mut connect = head("/", &[("host", "a")]);
        connect.method = Method::CONNECT;
        assert_eq!(check(&connect).unwrap_err().status(), 501);
    }

    #[test]
    fn tells_the_upstream_of_the_client_where_wanted() {
        let mut request = head("/", &[("host", "a"), ("x-forwarded-for", "10.0.0.1")]);
        let on = Route {
            forwarded: Forwarded::On,
            ..route("")
        };
        to_upstream(&mut request, Use::Exchange, &on).unwrap();
        assert_eq!(request.headers["x-forwarded-for"], "10.0.0.1, 127.0.0.1");
        assert_eq!(request.headers["x-forwarded-host"], "a");
        assert_eq!(request.headers["x-forwarded-proto"], "http");
        let mut request = head("/", &[("host", "a:1"), ("forwarded", "for=10.0.0.1")]);
        let standard = Route {
            forwarded: Forwarded::Standard,
            client: std::net::Ipv6Addr::LOCALHOST.into(),
            ..route("")
        };
        to_upstream(&mut request, Use::Exchange, &standard).unwrap();
        let told: Vec<_> = request.headers.get_all("forwarded").iter().collect();
        assert_eq!(
            told,
            ["for=10.0.0.1", "for=\"[::1]\";host=\"a:1\";proto=http"]
        );
    }
}
