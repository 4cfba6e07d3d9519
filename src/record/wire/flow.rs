//! The maps of how content flowed: keys `grpc` and `pace` of an exchange, absent where there is nothing to say.

use serde::{Deserialize, Serialize};

use crate::record::{Beat, Flow, Grpc, Message, Messages};

/// `[at_us, bytes]`.
pub(super) type PaceForm = Vec<(u64, u64)>;

#[derive(Serialize, Deserialize)]
pub(super) struct GrpcForm<'a> {
    service: &'a str,
    method: &'a str,
    status: Option<u32>,
    #[serde(default)]
    message: &'a str,
    request: MessagesForm,
    response: MessagesForm,
}

#[derive(Serialize, Deserialize)]
struct MessagesForm {
    count: u64,
    #[serde(default)]
    broken: bool,
    /// `[offset, bytes, compressed, at_us]`.
    first: Vec<(u64, u32, bool, u64)>,
}

pub(super) fn grpc_form(flow: &Flow) -> Option<Box<GrpcForm<'_>>> {
    flow.grpc.as_ref().map(|grpc| {
        Box::new(GrpcForm {
            service: &grpc.service,
            method: &grpc.method,
            status: grpc.status,
            message: &grpc.message,
            request: (&grpc.request).into(),
            response: (&grpc.response).into(),
        })
    })
}

pub(super) fn pace_form(flow: &Flow) -> PaceForm {
    flow.pace.iter().map(|b| (b.at_us, b.bytes)).collect()
}

pub(super) fn flow(grpc: Option<Box<GrpcForm<'_>>>, pace: PaceForm) -> Flow {
    Flow {
        grpc: grpc.map(|form| {
            Box::new(Grpc {
                service: form.service.into(),
                method: form.method.into(),
                status: form.status,
                message: form.message.into(),
                request: form.request.into(),
                response: form.response.into(),
            })
        }),
        pace: pace
            .into_iter()
            .map(|(at_us, bytes)| Beat { at_us, bytes })
            .collect(),
    }
}

impl From<&Messages> for MessagesForm {
    fn from(messages: &Messages) -> Self {
        let each = messages.first.iter();
        Self {
            count: messages.count,
            broken: messages.broken,
            first: each
                .map(|m| (m.offset, m.bytes, m.compressed, m.at_us))
                .collect(),
        }
    }
}

impl From<MessagesForm> for Messages {
    fn from(form: MessagesForm) -> Self {
        let message = |(offset, bytes, compressed, at_us)| Message {
            offset,
            bytes,
            compressed,
            at_us,
        };
        Self {
            count: form.count,
            broken: form.broken,
            first: form.first.into_iter().map(message).collect(),
        }
    }
}
