//! Answers a request from the records.
//!
//! Never falls through to a live service unless [`Miss::PassThrough`] names one. The request's content is
//! hashed as it comes in and not kept, except for a pass-through. An answer whose body cannot be given whole
//! is broken off, so that its client sees that something is missing; [`TRUNCATED_HEADER`] says so beforehand
//! where it is known. A WebSocket handshake is answered where the conversation behind the recorded one is there whole,
//! and that is then held by whoever has the connection.

mod head;
mod handshake;
mod refusal;
mod timing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};

use super::link::{Connector, PassThrough};
use super::matcher::{self, Asked, Matcher};
use super::miss::Explainer;
use super::script::Unfit;
use super::stored::{BodyError, Stored};
use super::web_socket::{self, Conversation, Conversations, Others};
use super::{Error, Metrics, RECORD_HEADER, TRUNCATED_HEADER, TalkStatus, Target, fields};
use crate::record::{Body, Digest, Digester, Exchange, Response as Recorded, Side, Stream};
use crate::store::{Pieces, Store};
use refusal::Refusal;

/// The body of an answer; an error breaks the answer off.
pub type AnswerBody = UnsyncBoxBody<Bytes, BodyError>;

/// What to do with a request that nothing recorded fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Miss {
    /// Answer 404 with the nearest records and what differs.
    #[default]
    Explain,
    /// Ask a live service.
    PassThrough(Target),
}

/// How long an answer waits before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delay {
    /// Not at all.
    #[default]
    None,
    /// As long as the recorded service took.
    AsRecorded,
    /// So long.
    Fixed(Duration),
}

/// Whether an answer names its record in [`RECORD_HEADER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provenance {
    /// Yes.
    #[default]
    Shown,
    /// No: the answer has just what was recorded.
    Hidden,
}

/// How requests are answered.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which record answers.
    pub matching: matcher::Config,
    /// What happens where none does.
    pub miss: Miss,
    /// How long an answer waits.
    pub delay: Delay,
    /// The longest wait, whatever was recorded.
    pub max_delay: Duration,
    /// Larger request bodies are matched like any other, but not kept, so not passed on: where no record fits
    /// they are refused with 413.
    pub max_passed_body: u64,
    /// A request body that pauses for longer is refused with 408.
    pub body_timeout: Duration,
    /// Whether an answer names its record.
    pub provenance: Provenance,
    /// How many of the newest records an explanation looks at.
    pub miss_scan: usize,
    /// How long a pass-through waits for a connection.
    pub connect_timeout: Duration,
    /// How long a pass-through waits for the head of a response.
    pub pass_through_timeout: Duration,
    /// How the clients of WebSocket are answered.
    pub web_socket: web_socket::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            matching: matcher::Config::default(),
            miss: Miss::default(),
            delay: Delay::default(),
            max_delay: Duration::from_secs(60),
            max_passed_body: 16 << 20,
            body_timeout: Duration::from_secs(30),
            provenance: Provenance::default(),
            miss_scan: 2000,
            connect_timeout: Duration::from_secs(5),
            pass_through_timeout: Duration::from_secs(30),
            web_socket: web_socket::Config::default(),
        }
    }
}

impl Config {
    /// Looks whether an [`Answerer`] could work with it.
    ///
    /// # Errors
    /// As for [`Answerer::new`].
    pub fn check(&self) -> Result<(), Error> {
        self.pass_through().map(drop)
    }

    fn pass_through(&self) -> Result<Option<PassThrough>, Error> {
        match &self.miss {
            Miss::Explain => Ok(None),
            Miss::PassThrough(target) => {
                let connector = Connector::new(target.clone(), None, self.connect_timeout)?;
                Ok(Some(PassThrough::new(connector, self.pass_through_timeout)))
            }
        }
    }
}

/// Answers requests from a store.
pub struct Answerer {
    store: Arc<dyn Store>,
    config: Config,
    matcher: Matcher,
    explainer: Explainer,
    pass_through: Option<PassThrough>,
    conversations: Arc<Conversations>,
    metrics: Metrics,
}

/// What a client gets.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response<AnswerBody>,
    /// What to do with the connection behind it, where the response is a 101.
    pub conversation: Option<Box<Conversation>>,
}

/// An answer and how it came about.
struct Given {
    how: &'static str,
    response: Response<AnswerBody>,
    conversation: Option<Box<Conversation>>,
    delay: Duration,
}

impl Answerer {
    /// Answers from `store` as `config` says.
    ///
    /// # Errors
    /// [`Error::Tls`] where a pass-through to an https target cannot be set up.
    pub fn new(store: Arc<dyn Store>, config: Config, metrics: Metrics) -> Result<Self, Error> {
        let pass_through = config.pass_through()?;
        let rules = config.matching.rules.clone();
        let conversations = Conversations::new(
            store.clone(),
            config.web_socket.clone(),
            (config.delay, config.max_delay),
            metrics.clone(),
        );
        Ok(Self {
            conversations: Arc::new(conversations),
            matcher: Matcher::new(store.clone(), config.matching.clone(), metrics.clone()),
            explainer: Explainer::new(store.clone(), rules, config.miss_scan),
            pass_through,
            store,
            config,
            metrics,
        })
    }

    /// Every session and client starts again with the first recorded answer.
    pub fn restart(&self) {
        self.matcher.restart();
    }

    /// How the clients of WebSocket fare: the last mismatches, by service.
    #[must_use]
    pub fn web_sockets(&self) -> Vec<TalkStatus> {
        self.conversations.status()
    }

    /// Answers one request; whatever goes wrong is an answer, too.
    pub async fn answer<B>(&self, parts: &Parts, body: B, client: SocketAddr) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let started = Instant::now();
        let given = match self.decide(parts, body, client).await {
            Ok(given) => given,
            Err(refusal) => {
                refusal.log();
                Given {
                    how: refusal.kind(),
                    response: refusal.response(parts),
                    conversation: None,
                    delay: Duration::ZERO,
                }
            }
        };
        Metrics::count(&self.metrics.answers, given.how);
        let taken = started.elapsed();
        self.metrics.answer_duration.observe(taken.as_secs_f64());
        if let Some(rest) = given.delay.min(self.config.max_delay).checked_sub(taken) {
            tokio::time::sleep(rest).await;
        }
        Answer {
            response: given.response,
            conversation: given.conversation,
        }
    }

    async fn decide<B>(&self, parts: &Parts, body: B, client: SocketAddr) -> Result<Given, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let content = self.read(body).await?;
        let matching = self.matcher.config();
        let asked = Asked::new(parts, content.digest, content.bytes, client, matching);
        let now = Instant::now();
        if let Some(exchange) = self.matcher.find(&asked, now).await? {
            return match &exchange.response {
                Some(recorded) if recorded.status == 101 => {
                    let alike = self.matcher.alike(&asked).await?;
                    let others = Others::new(alike, &exchange);
                    self.switch(&exchange, recorded, parts, (others, client))
                        .await
                }
                _ => self.recorded(&exchange, &parts.method),
            };
        }
        if let Some(pass_through) = &self.pass_through {
            if content.bytes > self.config.max_passed_body {
                return Err(Refusal::BodyTooLarge(self.config.max_passed_body));
            }
            let response = pass_through.send(parts, content.kept).await?;
            let metrics = self.metrics.clone();
            let response = response.map(|body| {
                body.map_err(move |error| {
                    let error = BodyError::Upstream(error);
                    Metrics::count(&metrics.answers_broken, error.as_str());
                    error
                })
                .boxed_unsync()
            });
            return Ok(Given {
                how: "pass_through",
                response,
                conversation: None,
                delay: Duration::ZERO,
            });
        }
        let explanation = self.explainer.explain(&asked, now).await?;
        Err(Refusal::Miss(Box::new(explanation)))
    }

    /// Reads the request's content: digest and length, and the bytes only where they may be passed on.
    async fn read<B>(&self, body: B) -> Result<Content, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let mut body = std::pin::pin!(body);
        let mut digester = Digester::default();
        let mut content = Content::default();
        let limit = self.config.body_timeout;
        // Each part has its time: a large body may take long as a whole.
        while let Some(frame) = tokio::time::timeout(limit, body.frame())
            .await
            .map_err(|_| Refusal::BodyTimeout(limit))?
        {
            let frame = frame.map_err(|error| Refusal::BodyBroken(Box::new(error)))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            content.bytes += data.len() as u64;
            digester.update(&data);
            if content.bytes > self.config.max_passed_body {
                content.kept = Vec::new();
            } else if self.pass_through.is_some() {
                content.kept.push(data);
            }
        }
        content.digest = digester.finish();
        Ok(content)
    }

    fn recorded(&self, exchange: &Exchange, method: &Method) -> Result<Given, Refusal> {
        let recorded = exchange.response.as_ref();
        let recorded = recorded.expect("the matcher gives only exchanges with a response");
        let has_content = head::has_content(method, recorded.status);
        let truncated = has_content && recorded.body.truncated;
        let (mut response, dropped) = head::build(recorded, has_content)?;
        self.metrics.headers_dropped.inc_by(dropped);
        self.show_provenance(exchange, &mut response);
        if truncated {
            let truncated = HeaderValue::from_static("true");
            response.headers_mut().insert(TRUNCATED_HEADER, truncated);
        }
        let body = if has_content {
            self.body(exchange, recorded)
        } else {
            Empty::new().map_err(|never| match never {}).boxed_unsync()
        };
        Ok(Given {
            how: "hit",
            response: response.map(|()| body),
            conversation: None,
            delay: self.delay(exchange),
        })
    }

    /// Accepts a handshake, where the conversation behind the recorded one is there.
    async fn switch(
        &self,
        exchange: &Exchange,
        recorded: &Recorded,
        parts: &Parts,
        (others, client): (Others, SocketAddr),
    ) -> Result<Given, Refusal> {
        let stream = self.conversation_of(exchange).await;
        let stream = stream.map_err(|why| Refusal::conversation(exchange.id, why))?;
        let (mut response, dropped) = handshake::accept(parts, recorded)?;
        self.metrics.headers_dropped.inc_by(dropped);
        self.show_provenance(exchange, &mut response);
        let conversation = Conversation::new(self.conversations.clone(), stream, others, client);
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Ok(Given {
            how: "hit",
            response: response.map(|()| body),
            conversation: Some(Box::new(conversation)),
            delay: self.delay(exchange),
        })
    }

    /// The stream behind a handshake, where all of it is there.
    async fn conversation_of(&self, exchange: &Exchange) -> Result<Arc<Stream>, Unfit> {
        let id = exchange.stream.ok_or(Unfit::Gone)?;
        let stream = self.conversations.stream(id).await?;
        web_socket::fit(&stream)?;
        let missing = self
            .store
            .first_missing(id, Pieces::Segments, stream.batches);
        match missing.await? {
            None => Ok(stream),
            Some(index) => Err(Unfit::Missing { index }),
        }
    }

    fn show_provenance(&self, exchange: &Exchange, response: &mut Response<()>) {
        if self.config.provenance == Provenance::Shown {
            let id = HeaderValue::try_from(exchange.id.to_string());
            let id = id.expect("a UUID is a legal field value");
            response.headers_mut().insert(RECORD_HEADER, id);
        }
    }

    fn delay(&self, exchange: &Exchange) -> Duration {
        match self.config.delay {
            Delay::None => Duration::ZERO,
            Delay::Fixed(delay) => delay,
            Delay::AsRecorded => Duration::from_micros(exchange.timing.first_byte_us.unwrap_or(0)),
        }
    }

    fn body(&self, exchange: &Exchange, recorded: &Recorded) -> AnswerBody {
        let whole = recorded.body.chunks == 0 && !recorded.body.truncated;
        if whole && recorded.body.bytes == 0 && recorded.trailers.is_empty() {
            // Ends with its head, as gRPC wants where the status stands there.
            return Empty::new().map_err(|never| match never {}).boxed_unsync();
        }
        let pace = match self.config.delay {
            Delay::AsRecorded => &*exchange.flow.pace,
            Delay::None | Delay::Fixed(_) => &[],
        };
        let declared = recorded.headers.first("content-length").is_some();
        if whole && declared && pace.is_empty() && recorded.trailers.is_empty() {
            let body = Full::new(recorded.body.inline.clone());
            return body.map_err(|never| match never {}).boxed_unsync();
        }
        let stored = Stored {
            store: self.store.clone(),
            record: exchange.id,
            side: Side::Response,
            body: recorded.body.clone(),
            patience: Duration::ZERO,
        };
        let metrics = self.metrics.clone();
        let first_byte_us = exchange.timing.first_byte_us.unwrap_or(0);
        let pieces = timing::paced(stored.stream(), pace, first_byte_us, self.config.max_delay);
        let frames = pieces
            .map_ok(Frame::data)
            .chain(ending(exchange, &recorded.body, recorded))
            .or_else(move |error| {
                tracing::warn!(%error, "answer broken off");
                Metrics::count(&metrics.answers_broken, error.as_str());
                async {
                    // Lets what was given so far reach the client before the connection goes.
                    tokio::task::yield_now().await;
                    Err(error)
                }
            });
        StreamBody::new(frames).boxed_unsync()
    }
}

/// What follows the kept bytes: trailers, or the break where bytes are missing.
///
/// An event stream has no end of its own, so that one just ends where its client went away.
fn ending(
    exchange: &Exchange,
    body: &Body,
    recorded: &Recorded,
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static {
    let events = recorded
        .headers
        .first("content-type")
        .is_some_and(|kind| kind.starts_with(b"text/event-stream"));
    let trailers = (!recorded.trailers.is_empty()).then(|| fields::passed_on(&recorded.trailers).0);
    let record = exchange.id;
    let broken = body.truncated && !events;
    stream::once(async move {
        if broken {
            return Err(BodyError::Truncated { record });
        }
        Ok(trailers.map(Frame::trailers))
    })
    .filter_map(|end| async move { end.transpose() })
}

/// A request's content as far as it is needed.
struct Content {
    digest: Digest,
    bytes: u64,
    kept: Vec<Bytes>,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            digest: Digest::of(&[]),
            bytes: 0,
            kept: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Answerer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answerer")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
