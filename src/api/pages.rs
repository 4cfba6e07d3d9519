//! The dashboard's files, which are part of the program.

use std::fmt::Write;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

/// Only our own files may run; content of records is shown as text, or as an image made from bytes.
const POLICY: &str = "default-src 'self'; img-src 'self' blob:; object-src 'none'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "web/"]
struct Files;

/// One file of the dashboard.
pub(super) struct Page(EmbeddedFile);

/// The file at a path; `/` is the dashboard itself.
pub(super) fn find(path: &str) -> Option<Page> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name,
    };
    Files::get(name).map(Page)
}

impl Page {
    /// The file, or that the client's copy is still right (RFC 9110 section 13.1.2).
    pub(super) fn answer(self, request: &HeaderMap) -> Response {
        let tag = tag(&self.0.metadata.sha256_hash());
        let known = request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*");
        let mut headers = HeaderMap::new();
        let tag = HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes");
        headers.insert(header::ETAG, tag);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        let media_type = HeaderValue::from_str(self.0.metadata.mimetype())
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_TYPE, media_type);
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        );
        let bytes = bytes::Bytes::from(self.0.data.into_owned());
        (headers, Body::from(bytes)).into_response()
    }
}

fn tag(hash: &[u8]) -> String {
    let mut tag = String::from("\"");
    for byte in &hash[..hash.len().min(16)] {
        write!(tag, "{byte:02x}").expect("formatting into a string cannot fail");
    }
    tag.push('"');
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_its_own_files_and_no_others() {
        assert!(find("/").is_some() && find("/index.html").is_some());
        for path in [
            "/../Cargo.toml",
            "/nothing",
            "index.html",
            "//index.html",
            "/%2e%2e/x",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_copy_that_is_still_right_is_not_sent_again() {
        let first = find("/").unwrap().answer(&HeaderMap::new());
        let tag = first.headers()[header::ETAG].clone();
        let again: HeaderMap = [(header::IF_NONE_MATCH, tag)].into_iter().collect();
        assert_eq!(
            find("/").unwrap().answer(&again).status(),
            StatusCode::NOT_MODIFIED
        );
        let stale = [(header::IF_NONE_MATCH, HeaderValue::from_static("\"0\""))];
        let stale: HeaderMap = stale.into_iter().collect();
        assert_eq!(find("/").unwrap().answer(&stale).status(), StatusCode::OK);
    }
}
