//! `playback`: how records are used.

use crate::config::file::{AnswerTcp, IgnoreForm, OneOrMany, Playback};
use crate::config::settings::{
    AnswerSettings, AnswerTcpSettings, Auto, BodyMatch, Delay, IgnoreSetting, MatchSettings, Miss,
    Mode, PlaybackSettings, Repeat,
};
use crate::config::target;
use crate::config::units::{Span, Written};

use super::{LOOPBACK, Resolver, lower_case, span};

/// How many clients a listener answers from streams at once, where nothing else is said.
const ANSWERED: u32 = 1000;

impl Resolver {
    pub(super) fn playback(
        &mut self,
        mode: Mode,
        form: Playback,
        answer: Option<AnswerSettings>,
        many_hosts: bool,
    ) -> PlaybackSettings {
        let upstream = form
            .upstream
            .and_then(|text| self.origin("playback.upstream", &text));
        let miss = match (form.miss.as_deref().unwrap_or("explain"), upstream) {
            ("explain", _) => Miss::Explain,
            ("pass_through", Some(upstream)) => Miss::PassThrough(upstream),
            ("pass_through", None) => {
                self.wrong(
                    "playback.upstream",
                    "is missing: `miss` is `pass_through`, but where to?",
                );
                Miss::Explain
            }
            (other, _) => {
                self.wrong(
                    "playback.miss",
                    format!("`{other}` must be explain or pass_through"),
                );
                Miss::Explain
            }
        };
        let delay = match form.delay.as_deref().unwrap_or("none") {
            "none" => Delay::None,
            "as_recorded" => Delay::AsRecorded,
            text => match <Span as Written>::from_text(text) {
                Some(span) => Delay::Fixed(span.0),
                None => {
                    let message =
                        format!("`{text}` must be none, as_recorded, or a time such as 200ms");
                    self.wrong("playback.delay", message);
                    Delay::None
                }
            },
        };
        // Where clients name their hosts themselves, one host's `/` is not another's.
        let many_hosts = many_hosts || answer.as_ref().is_some_and(|answer| answer.ca.is_some());
        let matching = form.r#match.unwrap_or_default();
        let default_targets = || {
            vec![
                LOOPBACK.to_owned(),
                "localhost".to_owned(),
                "[::1]".to_owned(),
            ]
        };
        PlaybackSettings {
            answer,
            tcp: self.answer_tcp(mode, form.tcp),
            miss,
            auto: form.auto.and_then(|text| self.auto(&text)).map(Auto),
            allowed_targets: form.allowed_targets.unwrap_or_else(default_targets),
            repeat: form.repeat.unwrap_or(Repeat::Last),
            delay,
            matching: MatchSettings {
                host: matching.host.unwrap_or(many_hosts),
                ignore_query: matching.ignore_query.unwrap_or_default(),
                headers: lower_case(matching.headers),
                body: matching.body.unwrap_or(BodyMatch::Exact),
            },
        }
    }

    /// Where records are replayed to as they arrive: `http(s)://`, or `tcp://` and `tls://` for streams.
    fn auto(&mut self, text: &str) -> Option<String> {
        let key = "playback.auto";
        let stream = ["tcp://", "tls://"]
            .into_iter()
            .find(|s| text.starts_with(s));
        let Some(scheme) = stream else {
            return self.origin(key, text);
        };
        match target::endpoint(&text[scheme.len()..]) {
            Ok(_) => Some(text.to_owned()),
            Err(message) => {
                self.wrong(key, message);
                None
            }
        }
    }

    fn answer_tcp(
        &mut self,
        mode: Mode,
        forms: Option<OneOrMany<AnswerTcp>>,
    ) -> Vec<AnswerTcpSettings> {
        let forms = forms.map(|forms| forms.0).filter(|_| mode.plays());
        let forms = forms.unwrap_or_default();
        let many = forms.len() > 1;
        let mut all = Vec::new();
        for (at, form) in forms.into_iter().enumerate() {
            let key = if many {
                format!("playback.tcp[{at}]")
            } else {
                "playback.tcp".to_owned()
            };
            for (name, missing) in [
                ("port", form.port.is_none()),
                ("service", form.service.is_none()),
            ] {
                if missing {
                    self.wrong(format!("{key}.{name}"), "is missing");
                }
            }
            let ignore = form.ignore.map(|rules| rules.0).unwrap_or_default();
            let named = form.service.unwrap_or_else(|| "-".to_owned());
            all.push(AnswerTcpSettings {
                listen: self.listen(&key, form.host, form.port, 0),
                service: self.service(&format!("{key}.service"), Some(named), String::new()),
                tls: self.tls(&key, form.tls),
                ignore: self.ignored(&format!("{key}.ignore"), ignore),
                max_connections: self.connections(
                    &format!("{key}.max_connections"),
                    form.max_connections.or(Some(ANSWERED)),
                ),
                idle_timeout: span(form.idle_timeout, 3600),
            });
        }
        all
    }

    fn ignored(&mut self, key: &str, forms: Vec<IgnoreForm>) -> Vec<IgnoreSetting> {
        let many = forms.len() > 1;
        let mut all = Vec::new();
        for (at, form) in forms.into_iter().enumerate() {
            match (form.start, form.end, form.pattern) {
                (Some(start), Some(end), None) if start < end => {
                    all.push(IgnoreSetting::Bytes(start..end));
                }
                (None, None, Some(pattern)) => all.push(IgnoreSetting::Pattern(pattern)),
                _ => {
                    let key = if many {
                        format!("{key}[{at}]")
                    } else {
                        key.to_owned()
                    };
                    let message = "needs `start` and a larger `end`, or `pattern`";
                    self.wrong(key, message);
                }
            }
        }
        all
    }
}
