//! `capture`: what is copied, and what of it is masked.

use crate::config::file::{Capture, RuleForm};
use crate::config::settings::{CaptureSettings, Rule};

use super::{Resolver, lower_case};

impl Resolver {
    pub(super) fn capture(&mut self, form: Capture) -> CaptureSettings {
        let sample = form.sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&sample) {
            self.wrong("capture.sample", format!("`{sample}` must be from 0 to 1"));
        }
        let redact = form.redact.unwrap_or_default();
        let pointers = redact.json.unwrap_or_default();
        for (at, pointer) in pointers.iter().enumerate() {
            if !pointer.starts_with('/') {
                let message = format!("`{pointer}` must be a JSON pointer such as /user/password");
                self.wrong(format!("capture.redact.json[{at}]"), message);
            }
        }
        let queue = self.at_least("capture.queue_bytes", form.queue_bytes, 32 << 20, 1 << 20);
        CaptureSettings {
            enabled: form.enabled.unwrap_or(true),
            sample,
            max_body_bytes: form.max_body_bytes.map_or(64 << 20, |size| size.0),
            max_stream_bytes: form.max_stream_bytes.map_or(64 << 20, |size| size.0),
            queue_bytes: usize::try_from(queue).unwrap_or(usize::MAX),
            include: rules(form.include),
            exclude: rules(form.exclude),
            redact_headers: lower_case(redact.headers),
            redact_json: pointers,
        }
    }
}

fn rules(forms: Option<Vec<RuleForm>>) -> Vec<Rule> {
    let rule = |form: RuleForm| Rule {
        methods: form.methods.unwrap_or_default(),
        paths: form.paths.unwrap_or_default(),
        hosts: form.hosts.unwrap_or_default(),
        statuses: form
            .statuses
            .unwrap_or_default()
            .into_iter()
            .map(|status| status.0)
            .collect(),
        content_types: form.content_types.unwrap_or_default(),
    };
    forms.unwrap_or_default().into_iter().map(rule).collect()
}
