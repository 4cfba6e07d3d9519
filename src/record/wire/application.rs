//! The map of what was spoken on a stream: key `application`, absent where that is not known.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::{Answer, Application, Call, Facts};

#[derive(Serialize, Deserialize)]
pub(super) struct ApplicationForm<'a> {
    protocol: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_version: Option<&'a str>,
    #[serde(default, skip_serializing_if = "is_false")]
    encrypted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    alpn: Vec<&'a str>,
    count: u64,
    #[serde(borrow)]
    calls: Vec<CallForm<'a>>,
    #[serde(default, skip_serializing_if = "is_false")]
    broken: bool,
}

#[derive(Serialize, Deserialize)]
struct CallForm<'a> {
    offset_us: u64,
    text: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl<'a> From<&'a Application> for ApplicationForm<'a> {
    fn from(application: &'a Application) -> Self {
        let facts = &application.facts;
        Self {
            protocol: &application.protocol,
            user: facts.user.as_deref(),
            database: facts.database.as_deref(),
            server_version: facts.server_version.as_deref(),
            encrypted: facts.encrypted,
            server_name: facts.server_name.as_deref(),
            alpn: facts.alpn.iter().map(AsRef::as_ref).collect(),
            count: application.count,
            calls: application.calls.iter().map(CallForm::from).collect(),
            broken: application.broken,
        }
    }
}

impl<'a> From<&'a Call> for CallForm<'a> {
    fn from(call: &'a Call) -> Self {
        let answer = call.answer.as_ref();
        Self {
            offset_us: call.offset_us,
            text: &call.text,
            answer_us: answer.map(|answer| answer.after_us),
            error: answer.and_then(|answer| answer.error.as_deref()),
        }
    }
}

impl From<ApplicationForm<'_>> for Application {
    fn from(form: ApplicationForm<'_>) -> Self {
        let text = |text: Option<&str>| text.map(Arc::from);
        Self {
            protocol: form.protocol.into(),
            facts: Facts {
                user: text(form.user),
                database: text(form.database),
                server_version: text(form.server_version),
                encrypted: form.encrypted,
                server_name: text(form.server_name),
                alpn: form.alpn.into_iter().map(Arc::from).collect(),
            },
            count: form.count,
            calls: form.calls.into_iter().map(Call::from).collect(),
            broken: form.broken,
        }
    }
}

impl From<CallForm<'_>> for Call {
    fn from(form: CallForm<'_>) -> Self {
        Self {
            offset_us: form.offset_us,
            text: form.text.into(),
            answer: form.answer_us.map(|after_us| Answer {
                after_us,
                error: form.error.map(Arc::from),
            }),
        }
    }
}
