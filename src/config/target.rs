//! Addresses as people write them: `http://localhost:8081`, `localhost:8083`, `[::1]:9`.

use super::settings::Endpoint;

/// Where HTTP/1.1 is spoken, or with TLS what ALPN says.
const HTTP: &[&str] = &["http", "https"];
/// HTTP/2 without and with TLS, too.
const ANY_HTTP: &[&str] = &["http", "https", "h2c", "h2"];

/// An HTTP origin, in the form `http://host:port`.
pub(super) fn http_origin(text: &str) -> Result<String, String> {
    origin(text, HTTP)
}

/// An HTTP origin to which HTTP/2 can be spoken from the first byte: `h2c://host:port` or `h2://host:port`.
pub(super) fn downstream_origin(text: &str) -> Result<String, String> {
    origin(text, ANY_HTTP)
}

fn origin(text: &str, schemes: &[&str]) -> Result<String, String> {
    let example = "such as http://localhost:8081";
    let wrong_start = || {
        let schemes = schemes.join(":// or ");
        format!("`{text}` must start with {schemes}://, {example}")
    };
    if !text.contains("://") {
        return Err(wrong_start());
    }
    let url = url::Url::parse(text)
        .map_err(|error| format!("`{text}` is no URL ({error}), {example}"))?;
    if !schemes.contains(&url.scheme()) {
        return Err(wrong_start());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or a password".to_owned());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "`{text}` must end with the port: paths pass through as they are"
        ));
    }
    let host = url
        .host_str()
        .ok_or_else(|| format!("`{text}` has no host, {example}"))?;
    let default = if url.scheme() == "h2" { 443 } else { 80 };
    let port = url.port_or_known_default().unwrap_or(default);
    if port == 0 {
        return Err(format!("`{text}` has port 0, which nothing listens on"));
    }
    Ok(format!("{}://{host}:{port}", url.scheme()))
}

/// A host and a port, in the form `host:port`.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let wrong = || format!("`{text}` must be host:port, such as localhost:8083");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(wrong)?;
    let host = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address
            .parse::<std::net::Ipv6Addr>()
            .map(|_| address)
            .map_err(|_| wrong())?,
        None if is_host(host) => host,
        None => return Err(wrong()),
    };
    Ok(Endpoint {
        host: host.to_owned(),
        port,
    })
}

/// Whether it can be a host's name or IPv4 address.
pub(super) fn is_host(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=253).contains(&text.len()) && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_brought_to_one_form() {
        let origin = |text| http_origin(text).ok();
        assert_eq!(
            origin("http://localhost:8081/").as_deref(),
            Some("http://localhost:8081")
        );
        assert_eq!(
            origin("https://a.example").as_deref(),
            Some("https://a.example:443")
        );
        assert_eq!(origin("http://[::1]:8").as_deref(), Some("http://[::1]:8"));
        let downstream = |text| downstream_origin(text).ok();
        assert_eq!(
            downstream("h2c://localhost").as_deref(),
            Some("h2c://localhost:80")
        );
        assert_eq!(downstream("h2://[::1]").as_deref(), Some("h2://[::1]:443"));
        assert_eq!(origin("h2c://localhost"), None);
        assert_eq!(
            downstream_origin("ftp://b").unwrap_err(),
            "`ftp://b` must start with http:// or https:// or h2c:// or h2://, such as http://localhost:8081"
        );
        for bad in ["h2c://", "h2c://a/x", "h2c://u@a", "h2c://a:0"] {
            assert_eq!(downstream(bad), None, "{bad}");
        }
        for bad in [
            "localhost:8081",
            "ftp://a",
            "http://",
            "http://a/x",
            "http://u:p@a",
            "http://a:0",
            "http://a?q",
        ] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn endpoints_need_a_host_and_a_port() {
        assert_eq!(
            endpoint("localhost:83").unwrap().to_string(),
            "localhost:83"
        );
        assert_eq!(endpoint("[::1]:83").unwrap().to_string(), "[::1]:83");
        for bad in [
            "localhost",
            ":83",
            "a:0",
            "a:99999",
            "::1:83",
            "http://a:1",
            "[x]:1",
            "",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
