//! Requests and answers over plain publishes: the asking side.
//!
//! A request goes to `{topic}/_q/{caller}/{correlation}`, its answer comes to
//! `_r/{caller}/{correlation}/{ok|error|busy|more}` (`answer.rs`). Payloads stay untouched. One subscription to
//! `_r/{caller}/#` serves all queries; it is made, and granted, before the first goes out.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OnceCell, oneshot};

use crate::codec::{Publish, QoS, ReasonCode, Text, Version};
use crate::driver::Shared;
use crate::error::{Error, QueryError};
use crate::options::MqttConfig;
use crate::queue::Hear;
use crate::random;
use crate::stats::Counters;

use super::answer::{Answer, Part, Taken};
use super::subscribe::subscribe;
use super::{MqttClient, PublishOptions, PublishToken, publish};

/// The queries that wait for an answer.
#[derive(Debug)]
pub(crate) struct Queries {
    caller: String,
    /// `_r/{caller}/`
    prefix: String,
    open: Mutex<HashMap<String, Open>>,
    subscribed: OnceCell<()>,
    max_response_bytes: usize,
}

#[derive(Debug)]
struct Open {
    answer: Answer,
    caller: oneshot::Sender<Result<Bytes, QueryError>>,
}

impl Queries {
    pub(crate) fn new(config: &MqttConfig) -> Self {
        let caller = format!("{}-{}", escape(&config.client_id), base32(random::bits()));
        let prefix = format!("{}/{caller}/", config.query.reply_root);
        let max_response_bytes = config.query.max_response_bytes;
        let (open, subscribed) = (Mutex::default(), OnceCell::new());
        Self {
            caller,
            prefix,
            open,
            subscribed,
            max_response_bytes,
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait for their answer.
    pub(crate) fn len(&self) -> usize {
        self.open().len()
    }

    pub(crate) fn is_reply(&self, topic: &Text) -> bool {
        topic.as_bytes().starts_with(self.prefix.as_bytes())
    }

    /// Takes an answer; those that nobody waits for are counted.
    pub(crate) fn reply(&self, publish: Publish, counters: &Counters) {
        let levels = publish.topic.strip_prefix(&self.prefix);
        let known = levels.and_then(|levels| match levels.split_once('/') {
            Some((id, levels)) => Some((id, Part::parse(levels)?)),
            // Sent to the response topic as it stands: what it is says itself.
            None => Some((levels, Part::of(publish.properties.as_deref())?)),
        });
        let taken = known.is_some_and(|(id, part)| self.take_part(id, part, publish.payload));
        if !taken {
            counters.late_answers.add(1);
        }
    }

    /// A request is of no use when the caller has given up. In MQTT 5.0 it says what its topic says, for responders that
    /// look there.
    fn options(&self, id: &str, shared: &Shared) -> PublishOptions {
        let options = PublishOptions::new(QoS::AtLeastOnce).expiry(shared.config.query.timeout);
        match shared.config.protocol {
            Version::V311 => options,
            Version::V5 => options
                .response_topic(format!("{}{id}", self.prefix))
                .correlation_data(id.to_owned()),
        }
    }

    fn take_part(&self, id: &str, part: Part, payload: Bytes) -> bool {
        let mut open = self.open();
        let Some(query) = open.get_mut(id) else {
            return false;
        };
        let result = match query.answer.take(part, payload, self.max_response_bytes) {
            Taken::Open => return true,
            Taken::Ignored => return false,
            Taken::Complete(result) => result,
        };
        // Whoever waited may have gone; its guard is about to remove the entry then.
        open.remove(id)
            .is_some_and(|query| query.caller.send(result).is_ok())
    }
}

/// Takes a query off the list, however its caller ends.
struct Guard<'a> {
    queries: &'a Queries,
    id: &'a str,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.queries.open().remove(self.id);
    }
}

impl MqttClient {
    /// Asks whoever responds on `topic`, and returns the answer; parts of a long one are joined. Cancel-safe.
    ///
    /// ```no_run
    /// use qproxy_mqtt::error::{Error, QueryError};
    ///
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), Error> {
    /// match client.query("clock", "now?").await {
    ///     Ok(answer) => println!("{} bytes", answer.len()),
    ///     Err(Error::Query(QueryError::Busy)) => println!("ask again later"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Query`] says whether nobody answered in time, the responder is busy, or it answered with an error.
    pub async fn query(
        &self,
        topic: impl Into<Text>,
        payload: impl Into<Bytes>,
    ) -> Result<Bytes, Error> {
        let shared = self.shared();
        let limit = shared.config.query.timeout;
        shared.counters.queries.add(1);
        let topic = topic.into();
        let asked = ask(shared, &topic, payload.into());
        tokio::time::timeout(limit, asked)
            .await
            .unwrap_or_else(|_| {
                shared.counters.query_timeouts.add(1);
                Err(QueryError::Timeout(limit).into())
            })
    }
}

async fn ask(shared: &Shared, topic: &str, payload: Bytes) -> Result<Bytes, Error> {
    let queries = &shared.queries;
    let id = base32(random::bits());
    let (caller, answered) = oneshot::channel();
    // Before the subscription, which can wait as long as an answer.
    {
        let mut open = queries.open();
        let max = shared.config.query.max_outstanding;
        if open.len() >= max {
            return Err(QueryError::TooMany(max).into());
        }
        open.insert(
            id.clone(),
            Open {
                answer: Answer::default(),
                caller,
            },
        );
    }
    let _guard = Guard { queries, id: &id };

    let subscription = || async {
        let filter = Text::from(format!("{}#", queries.prefix));
        subscribe(shared, filter, QoS::AtLeastOnce.into())
            .await
            .map(drop)
    };
    queries.subscribed.get_or_try_init(subscription).await?;

    let level = &shared.config.query.request_level;
    let address = Text::from(format!("{topic}/{level}/{}/{id}", queries.caller));
    let options = queries.options(&id, shared);
    let mut queued = publish::prepare(shared, address, payload, options)?;
    // With the process its caller is gone.
    queued.keeping = None;
    let mut place = Some(queued);
    let number = shared.queue.publish(&mut place, Hear::Outcome).await?;
    let token = PublishToken::new(shared, number);
    tokio::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => return received(answer),
        published = token.reason() => {
            if published? == ReasonCode::NoMatchingSubscribers {
                return Err(QueryError::NobodyListens(Text::from(topic)).into());
            }
        }
    }
    received(answered.await)
}

fn received(
    answer: Result<Result<Bytes, QueryError>, oneshot::error::RecvError>,
) -> Result<Bytes, Error> {
    Ok(answer.map_err(|_| Error::Stopped)??)
}

/// Makes one topic level out of any text; other protocols take dots for separators.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '/' | '+' | '#' | '%' | '.') || character.is_control() {
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                let _ = write!(escaped, "%{byte:02X}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// 64 bits in 13 characters.
fn base32(mut bits: u64) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..13)
        .map(|_| {
            let character = char::from(ALPHABET[(bits & 31) as usize]);
            bits >>= 5;
            character
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_is_one_topic_level() {
        assert_eq!(escape("a/b+c#d%e.f\n"), "a%2Fb%2Bc%23d%25e%2Ef%0A");
        assert_eq!(escape("é-1"), "é-1");
    }

    #[test]
    fn correlations_are_thirteen_characters_and_distinct() {
        let some: std::collections::HashSet<_> = (0..1000).map(base32).collect();
        assert_eq!(some.len(), 1000);
        assert!(some.iter().all(|id| id.len() == 13));
        assert_ne!(
            base32(u64::MAX),
            base32(u64::MAX >> 1),
            "the top bit counts"
        );
    }

    #[test]
    fn answers_reach_the_query_they_belong_to_and_others_are_counted() {
        let queries = Queries::new(&MqttConfig::default());
        let counters = Counters::default();
        let (caller, mut answered) = oneshot::channel();
        let answer = Answer::default();
        queries
            .open()
            .insert("a".to_owned(), Open { answer, caller });
        let reply = |topic: &str, payload: &'static [u8]| {
            let publish = Publish {
                topic: format!("{}{topic}", queries.prefix).into(),
                payload: Bytes::from_static(payload),
                ..Publish::default()
            };
            queries.reply(publish, &counters);
        };
        for (topic, payload) in [
            ("b/ok", &b"another's"[..]),
            ("a/more/0", b"abc"),
            ("a/more/0", b"abc"),
            ("a/ok/1", b"de"),
            ("a/ok/1", b"de"),
            ("unknown", b""),
            ("a/what", b""),
        ] {
            reply(topic, payload);
        }
        assert_eq!(answered.try_recv().unwrap().unwrap(), "abcde");
        assert_eq!(counters.read().late_answers, 5);
    }
}
