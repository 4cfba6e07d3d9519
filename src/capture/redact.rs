//! Masks what must not leave the node: header values by name, JSON values by pointer.
//!
//! It fails closed: where JSON paths are configured and a JSON body cannot be read (content coding, cut off,
//! too large), the body is withheld rather than sent with a secret in it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::settings::Settings;
use crate::record::{Body, Digest, Headers};

const MASK: &str = "***";

/// What happened to a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redacted {
    /// No path led anywhere.
    Nothing,
    /// These paths were masked.
    Paths(Vec<Arc<str>>),
    /// The body could not be read, so it was emptied.
    Withheld,
}

/// Masks header values; names what was masked.
pub(super) fn headers(settings: &Settings, headers: &mut Headers, redactions: &mut Vec<Arc<str>>) {
    for name in &settings.redact_headers {
        let masked = headers.rewrite(|field, _| {
            field
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| Bytes::from_static(MASK.as_bytes()))
        });
        if masked > 0 {
            note(redactions, format!("header:{name}"));
        }
    }
}

/// Whether a body with this media type is looked into; one without a type is, as it may be JSON.
pub(super) fn applies_to(settings: &Settings, content_type: Option<&[u8]>) -> bool {
    !settings.redact_json.is_empty()
        && content_type.is_none_or(|value| {
            value
                .windows(4)
                .any(|window| window.eq_ignore_ascii_case(b"json"))
        })
}

/// Masks values in a JSON body that stands inline and is whole.
pub(super) fn json(settings: &Settings, typed: bool, body: &mut Body) -> Redacted {
    let first = body.inline.iter().find(|b| !b.is_ascii_whitespace());
    if body.bytes == 0 || (!typed && !matches!(first, Some(b'{' | b'['))) {
        return Redacted::Nothing;
    }
    let parsed = match (
        body.truncated,
        serde_json::from_slice::<Value>(&body.inline),
    ) {
        (false, Ok(value)) => Some(value),
        _ => None,
    };
    let Some(mut value) = parsed else {
        withhold(body);
        return Redacted::Withheld;
    };
    let masked: Vec<_> = settings
        .redact_json
        .iter()
        .filter(|path| mask(&mut value, path))
        .cloned()
        .collect();
    if masked.is_empty() {
        return Redacted::Nothing;
    }
    *body = Body::inline(Bytes::from(value.to_string()));
    Redacted::Paths(masked)
}

/// Empties a body and says so.
pub(super) fn withhold(body: &mut Body) {
    body.inline = Bytes::new();
    body.truncated = true;
    // The digest of the original would let a guess at the secret be checked.
    body.digest = Digest::of(&[]);
}

/// Adds a name once.
pub(super) fn note(redactions: &mut Vec<Arc<str>>, name: String) {
    if !redactions.iter().any(|known| **known == *name) {
        redactions.push(name.into());
    }
}

fn mask(value: &mut Value, pointer: &str) -> bool {
    let Some(rest) = pointer.strip_prefix('/') else {
        return false;
    };
    let (token, deeper) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(&rest[at..])),
        None => (rest, None),
    };
    let mut visit = |child: &mut Value| match deeper {
        Some(pointer) => mask(child, pointer),
        None => {
            *child = Value::String(MASK.to_owned());
            true
        }
    };
    // Every child is visited: `fold` and not `any`, which would stop at the first.
    let any = |hit: bool, child: bool| hit | child;
    match (value, token) {
        (Value::Object(map), "*") => map.values_mut().map(visit).fold(false, any),
        (Value::Array(list), "*") => list.iter_mut().map(visit).fold(false, any),
        (Value::Object(map), _) => map
            .get_mut(&token.replace("~1", "/").replace("~0", "~"))
            .is_some_and(visit),
        (Value::Array(list), _) => token
            .parse::<usize>()
            .ok()
            .and_then(|index| list.get_mut(index))
            .is_some_and(&mut visit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(paths: &[&str]) -> Settings {
        Settings {
            redact_json: paths.iter().map(|p| Arc::from(*p)).collect(),
            redact_headers: vec!["authorization".into()],
            ..Settings::default()
        }
    }

    #[test]
    fn masks_values_and_recomputes_the_digest() {
        let text = r#"{"user":{"name":"x","password":"p"},"cards":[{"no":1},{"no":2}]}"#;
        let mut body = Body::inline(Bytes::from(text));
        let settings = settings(&["/user/password", "/cards/*/no", "/none"]);
        let masked = json(&settings, true, &mut body);
        assert_eq!(
            masked,
            Redacted::Paths(vec!["/user/password".into(), "/cards/*/no".into()])
        );
        let expected =
            r#"{"user":{"name":"x","password":"***"},"cards":[{"no":"***"},{"no":"***"}]}"#;
        assert_eq!(body.inline, expected);
        assert_eq!(body.digest, Digest::of(expected.as_bytes()));
        assert_eq!(body.bytes, expected.len() as u64);
    }

    #[test]
    fn withholds_what_it_cannot_read() {
        for text in ["{\"password\":\"p", "\u{1f}\u{8b}gzip"] {
            let mut body = Body::inline(Bytes::from(text));
            assert_eq!(
                json(&settings(&["/password"]), true, &mut body),
                Redacted::Withheld
            );
            assert!(body.inline.is_empty() && body.truncated);
        }
    }

    #[test]
    fn leaves_text_without_a_type_alone() {
        let mut body = Body::inline(Bytes::from("hello"));
        assert_eq!(
            json(&settings(&["/a"]), false, &mut body),
            Redacted::Nothing
        );
        assert_eq!(body.inline, "hello");
    }

    #[test]
    fn masks_every_value_of_a_header() {
        let mut fields = Headers::default();
        fields.push(Bytes::from("Authorization"), Bytes::from("a"));
        fields.push(Bytes::from("x"), Bytes::from("y"));
        fields.push(Bytes::from("authorization"), Bytes::from("b"));
        let mut redactions = Vec::new();
        headers(&settings(&[]), &mut fields, &mut redactions);
        assert!(fields.all("authorization").all(|value| value == "***"));
        assert_eq!(redactions, [Arc::from("header:authorization")]);
    }
}
