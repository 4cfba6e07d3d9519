//! A shared, immutable piece of UTF-8: topics, client ids, user names.
//!
//! What is decoded is a slice of the read buffer, what the program passes in keeps its own allocation; a clone counts
//! a reference. There is no unsafe code: each look at the text checks it again, a few nanoseconds for a topic.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// Shared UTF-8 text; derefs to `str`.
///
/// ```
/// use bytes::Bytes;
/// use qproxy_mqtt::codec::Text;
///
/// let text = Text::from_utf8(Bytes::from_static(b"lamp/1")).expect("UTF-8");
/// assert_eq!(text, Text::from_static("lamp/1"));
/// assert_eq!(text.as_str(), "lamp/1");
/// assert!(text.starts_with("lamp/"), "it is a str, too");
/// assert_eq!(Text::from_utf8(Bytes::from_static(b"\xff")), None);
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// Takes bytes over without a copy; `None` where they are not UTF-8.
    #[must_use]
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        // Nearly all there is, and found out sooner.
        let is_text = bytes.is_ascii() || std::str::from_utf8(&bytes).is_ok();
        is_text.then_some(Self(bytes))
    }

    /// Text that lives as long as the program.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("every constructor takes only UTF-8")
    }

    /// Its bytes, without looking at them as text.
    ///
    /// ```
    /// # use qproxy_mqtt::codec::Text;
    /// assert_eq!(Text::from("lamp/1").as_bytes(), b"lamp/1");
    /// ```
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A copy in memory of its own, which does not keep a read buffer alive.
    ///
    /// ```
    /// # use qproxy_mqtt::codec::Text;
    /// use bytes::Bytes;
    ///
    /// let buffer = Bytes::from(vec![b'a'; 1000]);
    /// let slice = Text::from_utf8(buffer.slice(..3)).expect("UTF-8");
    /// let detached = slice.detached();
    /// drop(slice);
    /// assert_eq!(detached, "aaa");
    /// assert!(buffer.is_unique(), "the copy does not hold the buffer");
    /// ```
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// The same as `str`'s, so that a map keyed by `Text` can be asked with a `&str`.
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text.into_bytes()))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), formatter)
    }
}
