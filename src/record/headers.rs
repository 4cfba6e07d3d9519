//! Header fields as they came: ordered, repeated names kept, case kept where the protocol has it.

use bytes::Bytes;

/// An ordered list of header (or trailer) fields (RFC 9110 section 5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Bytes, Bytes)>);

impl Headers {
    /// An empty list with room for `count` fields.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Appends a field.
    pub fn push(&mut self, name: Bytes, value: Bytes) {
        self.0.push((name, value));
    }

    /// The first value of `name`, compared without case (RFC 9110 section 5.1).
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&Bytes> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, v)| v)
    }

    /// Every value of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> + 'a {
        self.0
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, v)| v)
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(n, v)| (n, v))
    }

    /// Replaces each value for which `change` gives another one; tells how many it replaced.
    pub fn rewrite(&mut self, mut change: impl FnMut(&[u8], &Bytes) -> Option<Bytes>) -> usize {
        let mut replaced = 0;
        for (name, value) in &mut self.0 {
            if let Some(new) = change(name, value) {
                *value = new;
                replaced += 1;
            }
        }
        replaced
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Bytes, Bytes)> for Headers {
    fn from_iter<I: IntoIterator<Item = (Bytes, Bytes)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

impl From<&http::HeaderMap> for Headers {
    fn from(map: &http::HeaderMap) -> Self {
        map.iter()
            .map(|(name, value)| {
                (
                    Bytes::copy_from_slice(name.as_str().as_bytes()),
                    Bytes::copy_from_slice(value.as_bytes()),
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_repeated_names_and_finds_without_case() {
        let fields = [("Set-Cookie", "a=1"), ("X", "y"), ("set-cookie", "b=2")];
        let headers: Headers = fields
            .iter()
            .map(|(n, v)| (Bytes::from(*n), Bytes::from(*v)))
            .collect();
        let cookies: Vec<_> = headers.all("SET-COOKIE").cloned().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(headers.iter().nth(1).unwrap().0, "X");
    }
}
