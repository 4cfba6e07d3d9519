//! Requests and answers over plain publishes: the answering side.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use crate::codec::{self, PacketId, QoS, Text};
use crate::driver::Shared;
use crate::error::Error;
use crate::inbox::Messages;
use crate::message::Message;
use crate::queue::{Hear, Queued};

use super::answer::{PART, Part, STATUS, Status};
use super::subscribe::{subscribe, unsubscribe};
use super::{MqttClient, PublishOptions, publish};

/// A question from a [`MqttClient::query`], or from any program that follows its topics.
///
/// ```no_run
/// # use qproxy_mqtt::client::Request;
/// use bytes::Bytes;
///
/// async fn echo(request: Request) -> Result<Bytes, Bytes> {
///     println!("{} asks on {}", request.caller, request.topic);
///     Ok(request.payload)
/// }
/// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
/// let responder = client.respond("echo", echo).await?;
/// # responder.stop().await
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The topic that was asked, without the levels that queries add.
    pub topic: Text,
    /// The question.
    pub payload: Bytes,
    /// Who asks: client id and a nonce.
    pub caller: Text,
}

/// Keeps a responder at work; dropped, it stops at once. Its subscription stays: see [`Responder::stop`].
///
/// ```no_run
/// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
/// let responder = client.respond("echo", |it| async move { Ok(it.payload) }).await?;
/// // ... as long as the program answers ...
/// responder.stop().await
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a responder stops when it is dropped"]
pub struct Responder {
    task: JoinHandle<()>,
    shared: Arc<Shared>,
    filter: Text,
}

impl Responder {
    /// Unsubscribes, and stops the handlers.
    ///
    /// # Errors
    /// The unsubscribe failed; the handlers are stopped all the same.
    pub async fn stop(self) -> Result<(), Error> {
        unsubscribe(&self.shared, self.filter.clone()).await
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MqttClient {
    /// Answers queries on the topics that `filter` matches, until the returned [`Responder`] is dropped.
    ///
    /// Handlers run side by side, up to `max_handlers`; beyond, callers hear "busy". `Ok` is the answer, `Err` an
    /// error answer. A repeat of a request is not handled again. Where the handler panics, the caller times out.
    ///
    /// A long answer goes out in parts, but in one piece, or as an error where that is over a limit, to a Response Topic
    /// that is not of the form that [`MqttClient::query`] gives it. In MQTT 5.0 whoever asks picks the topic of the answer:
    /// the server's access list has to say where a responder may publish.
    ///
    /// ```no_run
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// let responder = client
    ///     .respond("length", |request| async move {
    ///         match request.payload.len() {
    ///             0 => Err("nothing to count".into()),
    ///             length => Ok(length.to_string().into()),
    ///         }
    ///     })
    ///     .await?;
    /// # responder.stop().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`MqttClient::subscribe`].
    pub async fn respond<H, F>(
        &self,
        filter: impl Into<Text>,
        handler: H,
    ) -> Result<Responder, Error>
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Bytes, Bytes>> + Send + 'static,
    {
        let shared = self.shared().clone();
        let level = &shared.config.query.request_level;
        let filter = Text::from(format!("{}/{level}/+/+", filter.into()));
        crate::topic::validate_filter(&filter)?;
        let requests = shared.inbox.filtered(&filter);
        subscribe(&shared, filter.clone(), QoS::AtLeastOnce.into()).await?;
        let task = tokio::spawn(serve(shared.clone(), requests, handler));
        Ok(Responder {
            task,
            shared,
            filter,
        })
    }
}

async fn serve<H, F>(shared: Arc<Shared>, mut requests: Messages, handler: H)
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Bytes, Bytes>> + Send + 'static,
{
    let mut seen = Seen::new(shared.config.query.remembered_requests);
    let mut handlers = JoinSet::new();
    let handler = Arc::new(handler);
    loop {
        let message = tokio::select! {
            Some(finished) = handlers.join_next() => {
                if let Err(error) = finished {
                    warn!(%error, "handler of a query failed");
                }
                continue;
            }
            message = requests.recv() => message,
        };
        let Some(message) = message else { return };
        message.ack();
        shared.counters.requests.add(1);
        let Some((request, asker)) = parse(&message) else {
            continue;
        };
        if !seen.is_new(asker) {
            shared.counters.repeated_requests.add(1);
            continue;
        }
        let reply_to = ReplyTo::new(&shared, &message, asker);
        if handlers.len() >= shared.config.query.max_handlers {
            shared.counters.busy_requests.add(1);
            let shared = shared.clone();
            if let Err(error) = try_answer(&shared, &reply_to, Status::Busy.into(), Bytes::new()) {
                warn!(%error, "could not answer a query with busy");
            }
            continue;
        }
        let (shared, handler) = (shared.clone(), handler.clone());
        handlers.spawn(async move {
            // Called in here: a handler that panics before it returns its future must not take the responder along.
            let result = handler(request).await;
            if let Err(error) = answer(&shared, &reply_to, result).await {
                warn!(%error, "could not answer a query");
            }
        });
    }
}

/// Takes `{topic}/_q/{caller}/{correlation}` apart; the second part is `{caller}/{correlation}`.
fn parse(message: &Message) -> Option<(Request, &str)> {
    let topic = message.topic.as_str();
    let (rest, correlation) = topic.rsplit_once('/')?;
    let (rest, caller) = rest.rsplit_once('/')?;
    let (asked, _) = rest.rsplit_once('/')?;
    let request = Request {
        topic: Text::from(asked),
        payload: message.payload.clone(),
        caller: Text::from(caller),
    };
    let asker = &topic[topic.len() - caller.len() - 1 - correlation.len()..];
    Some((request, asker))
}

/// Where an answer goes, and how it says what it is.
enum ReplyTo {
    /// To levels under `_r/{caller}/{correlation}`.
    Levels(String),
    /// Where a request of MQTT 5.0 wants it, with what it wants back.
    Response(Text, Option<Bytes>, Parts),
}

/// Whether the caller can join a long answer that comes in parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    Joined,
    /// Its Response Topic is none of ours: a program that takes the first part for the whole.
    Unknown,
}

impl ReplyTo {
    fn new(shared: &Shared, message: &Message, asker: &str) -> Self {
        match message.response_topic() {
            Some(topic) => {
                // Callers of ours name caller and correlation there too, below whatever root they have.
                let root = topic.strip_suffix(asker);
                let parts = match root.and_then(|root| root.strip_suffix('/')) {
                    Some(_) => Parts::Joined,
                    None => Parts::Unknown,
                };
                Self::Response(topic.clone(), message.correlation_data().cloned(), parts)
            }
            None => Self::Levels(format!("{}/{asker}", shared.config.query.reply_root)),
        }
    }

    fn address(&self, part: Part) -> (Text, PublishOptions) {
        let options = PublishOptions::new(QoS::AtLeastOnce);
        match self {
            Self::Levels(root) => (Text::from(format!("{root}/{}", part.levels())), options),
            Self::Response(topic, correlation, _) => {
                let mut options = options;
                if let Some(correlation) = correlation {
                    options = options.correlation_data(correlation.clone());
                }
                if part.status != Status::Ok {
                    options = options.user_property(STATUS, part.status.level());
                }
                if let Some(number) = part.number {
                    options = options.user_property(PART, number.to_string());
                }
                (topic.clone(), options)
            }
        }
    }
}

async fn answer(
    shared: &Shared,
    reply_to: &ReplyTo,
    result: Result<Bytes, Bytes>,
) -> Result<(), Error> {
    let mut answer = match result {
        Err(error) => return send(shared, reply_to, Status::Error.into(), error).await,
        Ok(answer) => answer,
    };
    if matches!(reply_to, ReplyTo::Response(.., Parts::Unknown)) {
        return answer_whole(shared, reply_to, answer).await;
    }
    let size = shared.config.query.part_bytes.max(1);
    let mut number = 0;
    while answer.len() > size {
        let part = Part {
            status: Status::More,
            number: Some(number),
        };
        send(shared, reply_to, part, answer.split_to(size)).await?;
        number += 1;
    }
    let last = Part {
        status: Status::Ok,
        number: (number > 0).then_some(number),
    };
    send(shared, reply_to, last, answer).await
}

/// In one piece, or else an error answer: what is over a limit would fail without a word to the caller.
async fn answer_whole(shared: &Shared, to: &ReplyTo, answer: Bytes) -> Result<(), Error> {
    let bytes = answer.len();
    let (topic, options) = to.address(Status::Ok.into());
    let refused = match publish::prepare(shared, topic, answer, options) {
        Ok(mut queued) => match over_server_limit(shared, &mut queued)? {
            None => return enqueue(shared, queued).await,
            Some(limit) => format!("an answer of {bytes} bytes does not fit into {limit}"),
        },
        Err(Error::TooLarge { limit, .. }) => {
            format!("an answer of {bytes} bytes does not fit into {limit}")
        }
        Err(error) => return Err(error),
    };
    send(shared, to, Status::Error.into(), refused.into()).await
}

/// The largest packet that the server of the latest connection takes, where this one is larger.
fn over_server_limit(shared: &Shared, queued: &mut Queued) -> Result<Option<usize>, Error> {
    let terms = shared.terms.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(limit) = terms.as_ref().map(|terms| terms.max_packet_size) else {
        return Ok(None);
    };
    drop(terms);
    let mut head = BytesMut::new();
    queued.publish.id = Some(PacketId::MIN);
    codec::encode_publish_head(&queued.publish, shared.config.protocol, &mut head)?;
    queued.publish.id = None;
    let size = head.len() + queued.publish.payload.len();
    Ok((size > limit).then_some(limit))
}

/// Waits for room in the queue, but not for the acknowledgement: the caller asks again if it hears nothing.
async fn send(shared: &Shared, to: &ReplyTo, part: Part, payload: Bytes) -> Result<(), Error> {
    let (topic, options) = to.address(part);
    let queued = publish::prepare(shared, topic, payload, options)?;
    enqueue(shared, queued).await
}

async fn enqueue(shared: &Shared, queued: Queued) -> Result<(), Error> {
    let mut place = Some(queued);
    let published = shared.queue.publish(&mut place, Hear::Nothing).await;
    published.map(drop)
}

fn try_answer(shared: &Shared, to: &ReplyTo, part: Part, payload: Bytes) -> Result<(), Error> {
    let (topic, options) = to.address(part);
    let queued = publish::prepare(shared, topic, payload, options)?;
    let published = shared.queue.try_publish(&mut Some(queued), Hear::Nothing);
    published.map(drop)
}

/// The latest requests, to know a repeat.
struct Seen {
    known: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
    max: usize,
}

impl Seen {
    fn new(max: usize) -> Self {
        Self {
            known: HashSet::new(),
            order: VecDeque::new(),
            max,
        }
    }

    fn is_new(&mut self, request: &str) -> bool {
        let request: Arc<str> = request.into();
        if !self.known.insert(request.clone()) {
            return false;
        }
        self.order.push_back(request);
        while self.order.len() > self.max {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn knows_the_latest_requests_and_forgets_the_oldest() {
        let mut seen = Seen::new(2);
        assert!(seen.is_new("a"));
        assert!(!seen.is_new("a"));
        assert!(seen.is_new("b") && seen.is_new("c"));
        assert!(!seen.is_new("c"));
        assert!(seen.is_new("a"), "the oldest was forgotten");
        assert_eq!((seen.known.len(), seen.order.len()), (2, 2));
    }
}
