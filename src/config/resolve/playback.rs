//! `playback`: how records are used.

use crate::config::file::Playback;
use crate::config::settings::{
    AnswerSettings, Auto, BodyMatch, Delay, MatchSettings, Miss, PlaybackSettings, Repeat,
};
use crate::config::units::{Span, Written};

use super::{LOOPBACK, Resolver, lower_case};

impl Resolver {
    pub(super) fn playback(
        &mut self,
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
            miss,
            auto: form
                .auto
                .and_then(|text| self.origin("playback.auto", &text))
                .map(Auto),
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
}
