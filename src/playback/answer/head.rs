//! The head of an answer: what was recorded, without what is about one connection only.

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::refusal::Refusal;
use crate::playback::fields;
use crate::record::Response as Recorded;

/// Whether a response of this status to this method has content (RFC 9110 section 6.4.1).
pub(super) fn has_content(method: &Method, status: u16) -> bool {
    *method != Method::HEAD && !matches!(status, 100..=199 | 204 | 205 | 304)
}

/// The head with the recorded status and fields, and how many fields HTTP has no form for.
///
/// A recorded length is given only where that many bytes follow, or where none do by rule (HEAD, 304).
pub(super) fn build(recorded: &Recorded, content: bool) -> Result<(Response<()>, u64), Refusal> {
    let status = StatusCode::from_u16(recorded.status);
    let status = status.map_err(|_| Refusal::Status(recorded.status))?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    let (mut fields, dropped) = fields::passed_on(&recorded.headers);
    if fields.remove(header::CONTENT_LENGTH).is_some() && content {
        // The length of the kept record, in case that the recorded field was repeated or wrong.
        fields.insert(header::CONTENT_LENGTH, recorded.body.bytes.into());
    } else if let Some(length) = recorded.headers.first("content-length")
        && !matches!(recorded.status, 100..=199 | 204 | 205)
        && let Ok(length) = HeaderValue::from_maybe_shared(length.clone())
    {
        fields.insert(header::CONTENT_LENGTH, length);
    }
    *response.headers_mut() = fields;
    Ok((response, dropped))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{Body, Headers};

    fn recorded(status: u16, fields: &[(&'static str, &'static str)]) -> Recorded {
        Recorded {
            status,
            headers: fields
                .iter()
                .map(|(n, v)| (Bytes::from(*n), Bytes::from(*v)))
                .collect(),
            body: Body::inline(Bytes::from("12345")),
            trailers: Headers::default(),
            informational: Vec::new(),
        }
    }

    #[test]
    fn leaves_out_what_is_about_the_recorded_connection() {
        let fields = [
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("bad name", "x"),
        ];
        let (response, dropped) = build(&recorded(200, &fields), true).ok().unwrap();
        let fields = response.headers();
        assert_eq!((fields.len(), dropped), (2, 1));
        assert_eq!(fields.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn length_is_told_only_where_it_is_true() {
        let length = |status, content| {
            let recorded = recorded(status, &[("content-length", "99")]);
            let (response, _) = build(&recorded, content).ok().unwrap();
            response.headers().get("content-length").cloned()
        };
        assert_eq!(length(200, true).unwrap(), "5");
        assert_eq!(length(200, false).unwrap(), "99", "HEAD");
        assert_eq!(length(304, false).unwrap(), "99");
        assert_eq!(length(204, false), None);
    }

    #[test]
    fn content_is_a_matter_of_method_and_status() {
        assert!(has_content(&Method::GET, 200));
        assert!(!has_content(&Method::HEAD, 200));
        assert!(!has_content(&Method::GET, 204));
        assert!(!has_content(&Method::GET, 304));
    }
}
