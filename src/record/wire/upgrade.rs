//! The map of an upgrade, key `upgrade` of a stream; absent where the stream is a connection of its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::form::{Illegal, direction, direction_name};
use crate::record::{Close, Context, Deflate, Tally, Upgrade, Window};

#[derive(Serialize, Deserialize)]
pub(super) struct UpgradeForm<'a> {
    host: &'a str,
    target: &'a str,
    #[serde(default)]
    deflate: Option<DeflateForm>,
    #[serde(borrow)]
    client: TallyForm<'a>,
    #[serde(borrow)]
    server: TallyForm<'a>,
    #[serde(borrow, default)]
    close: Option<CloseForm<'a>>,
}

#[derive(Serialize, Deserialize)]
struct TallyForm<'a> {
    messages: u64,
    #[serde(default)]
    unframed: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct DeflateForm {
    client: WindowForm,
    server: WindowForm,
}

#[derive(Serialize, Deserialize)]
struct WindowForm {
    bits: u8,
    context: bool,
}

#[derive(Serialize, Deserialize)]
struct CloseForm<'a> {
    from: &'a str,
    code: Option<u16>,
    reason: &'a str,
}

pub(super) fn upgrade_form(upgrade: &Upgrade) -> Box<UpgradeForm<'_>> {
    Box::new(UpgradeForm {
        host: &upgrade.host,
        target: &upgrade.target,
        deflate: upgrade.deflate.map(|deflate| DeflateForm {
            client: deflate.client.into(),
            server: deflate.server.into(),
        }),
        client: (&upgrade.client).into(),
        server: (&upgrade.server).into(),
        close: upgrade.close.as_ref().map(|close| CloseForm {
            from: direction_name(close.from),
            code: close.code,
            reason: &close.reason,
        }),
    })
}

pub(super) fn upgrade(form: UpgradeForm<'_>) -> Result<Box<Upgrade>, Illegal> {
    let deflate = form.deflate.map(|form| -> Result<_, Illegal> {
        Ok(Deflate {
            client: window(&form.client)?,
            server: window(&form.server)?,
        })
    });
    let close = form.close.map(|form| -> Result<_, Illegal> {
        Ok(Close {
            from: direction(form.from).ok_or("upgrade.close.from")?,
            code: form.code,
            reason: form.reason.into(),
        })
    });
    Ok(Box::new(Upgrade {
        host: form.host.into(),
        target: form.target.into(),
        deflate: deflate.transpose()?,
        client: form.client.into(),
        server: form.server.into(),
        close: close.transpose()?,
    }))
}

fn window(form: &WindowForm) -> Result<Window, Illegal> {
    if !(8..=15).contains(&form.bits) {
        return Err("upgrade.deflate.bits");
    }
    let context = match form.context {
        true => Context::Kept,
        false => Context::Fresh,
    };
    Ok(Window {
        bits: form.bits,
        context,
    })
}

impl From<Window> for WindowForm {
    fn from(window: Window) -> Self {
        Self {
            bits: window.bits,
            context: window.context == Context::Kept,
        }
    }
}

impl<'a> From<&'a Tally> for TallyForm<'a> {
    fn from(tally: &'a Tally) -> Self {
        Self {
            messages: tally.messages,
            unframed: tally.unframed.as_deref(),
        }
    }
}

impl From<TallyForm<'_>> for Tally {
    fn from(form: TallyForm<'_>) -> Self {
        Self {
            messages: form.messages,
            unframed: form.unframed.map(Arc::from),
        }
    }
}
