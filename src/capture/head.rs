//! A header section copied into one flat buffer.
//!
//! One allocation and a few copies of some dozen bytes cost a fraction of a cloned header map, and the copy
//! does not keep the connection's read buffer alive, which a clone of its slices would.

use bytes::Bytes;
use http::HeaderMap;

use crate::record::Headers;

/// A text (a request's target, or nothing) and header fields.
#[derive(Debug, Clone, Default)]
pub(super) struct FlatHead {
    text: usize,
    bytes: Bytes,
}

impl FlatHead {
    pub(super) fn copy(text: &[&str], map: &HeaderMap) -> Self {
        let text_length = text.iter().map(|part| part.len()).sum();
        let fields = map
            .iter()
            .map(|(name, value)| 6 + name.as_str().len() + value.len())
            .sum::<usize>();
        let mut bytes = Vec::with_capacity(text_length + fields);
        for part in text {
            bytes.extend_from_slice(part.as_bytes());
        }
        for (name, value) in map {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            // Names are at most 64 KiB - 1 by HeaderName's own limit, values by the limit on heads.
            let name_length = u16::try_from(name.len()).unwrap_or(u16::MAX);
            let name = &name[..usize::from(name_length)];
            let value_length = u32::try_from(value.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&name_length.to_le_bytes());
            bytes.extend_from_slice(&value_length.to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&value[..value_length as usize]);
        }
        Self {
            text: text_length,
            bytes: bytes.into(),
        }
    }

    /// The same of a head as it came over HTTP/1.1, with the order and the case of its names. The first line
    /// is not looked at; a line that is no field is left out.
    pub(super) fn parse(text: &[&str], raw: &[u8]) -> Self {
        let text_length = text.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(text_length + raw.len() + 128);
        for part in text {
            bytes.extend_from_slice(part.as_bytes());
        }
        for line in raw.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            let Ok(name_length) = u16::try_from(name.len()) else {
                continue;
            };
            let value_length = u32::try_from(value.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&name_length.to_le_bytes());
            bytes.extend_from_slice(&value_length.to_le_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&value[..value_length as usize]);
        }
        Self {
            text: text_length,
            bytes: bytes.into(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.text]).unwrap_or_default()
    }

    pub(super) fn headers(&self) -> Headers {
        let mut at = self.text;
        let mut headers = Headers::with_capacity(16);
        while let Some((name, value)) = self.field(&mut at) {
            headers.push(name, value);
        }
        headers
    }

    fn field(&self, at: &mut usize) -> Option<(Bytes, Bytes)> {
        let (name, rest) = self.bytes[*at..].split_first_chunk::<2>()?;
        let (value, _) = rest.split_first_chunk::<4>()?;
        let name_at = *at + 6;
        let value_at = name_at + usize::from(u16::from_le_bytes(*name));
        let end = value_at + u32::from_le_bytes(*value) as usize;
        *at = end;
        Some((
            self.bytes.slice(name_at..value_at),
            self.bytes.slice(value_at..end),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_fields_in_order() {
        let mut map = HeaderMap::new();
        map.append("b", "1".parse().unwrap());
        map.append("set-cookie", "x=1".parse().unwrap());
        map.append("set-cookie", "".parse().unwrap());
        let head = FlatHead::copy(&["/a", "?b"], &map);
        assert_eq!(head.text(), "/a?b");
        assert_eq!(head.headers(), Headers::from(&map));
        let raw =
            b"GET /a?b HTTP/1.1\r\nB: 1\r\nSet-Cookie:  x=1\t\r\nC: a:b\r\nset-cookie:\r\n\r\n";
        let head = FlatHead::parse(&["/a", "?b"], raw);
        assert_eq!(head.text(), "/a?b");
        let fields: Vec<_> = head
            .headers()
            .iter()
            .map(|(n, v)| format!("{n:?}={v:?}"))
            .collect();
        let expected = [
            "b\"B\"=b\"1\"",
            "b\"Set-Cookie\"=b\"x=1\"",
            "b\"C\"=b\"a:b\"",
            "b\"set-cookie\"=b\"\"",
        ];
        assert_eq!(fields, expected);
        assert!(FlatHead::default().headers().is_empty());
    }
}
