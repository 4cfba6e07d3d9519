//! What playback's runs are to the API.

use async_trait::async_trait;
use serde_json::Value;

use crate::api::{Pace, ReplayRefused, ReplayRequest, Replays};
use crate::playback::{
    Error, HostHeader, Ignore, IgnoreRule, Plan, RunId, Runs, Selection, Speed, Target,
};
use crate::record::Direction;
use crate::store::Query;

/// Starts and shows replays for the API.
pub(super) struct ReplayDesk(pub(super) Runs);

#[async_trait]
impl Replays for ReplayDesk {
    async fn start(&self, request: ReplayRequest) -> Result<String, ReplayRefused> {
        let text = request.target.to_string();
        let target: Target = text.parse().map_err(|error: Error| refusal(error, &text))?;
        let selection = Selection::Window(Query {
            start_us: request.start_us,
            end_us: request.end_us,
            filter: request.filter,
            ..Query::default()
        });
        let mut plan = Plan::new(selection, target);
        plan.sending.concurrency = Some(request.concurrency);
        if request.keep_host {
            plan.sending.host = HostHeader::Recorded;
        }
        plan.sending
            .diff
            .ignore_headers
            .extend(request.ignore_headers);
        plan.sending.diff.ignore_json.extend(request.ignore_json);
        let pattern = |text: &String| IgnoreRule::pattern(Direction::Server, text);
        let rules: Result<Vec<_>, _> = request.ignore_bytes.iter().map(pattern).collect();
        let rules = rules.map_err(|error| ReplayRefused::Invalid {
            parameter: "ignore_bytes",
            message: error.to_string(),
        })?;
        plan.sending.ignore_bytes = Ignore::from(rules);
        plan.speed = match request.pace {
            Pace::Max => Speed::Max,
            Pace::Times(factor) => Speed::Factor(factor),
            Pace::PerSecond(rate) => Speed::Rate(rate),
        };
        let run = self.0.start(plan).map_err(|error| refusal(error, &text))?;
        Ok(run.to_string())
    }

    async fn list(&self) -> Vec<Value> {
        self.0.list().iter().map(json).collect()
    }

    async fn report(&self, id: &str) -> Option<Value> {
        let run: RunId = id.parse().ok()?;
        let report = self.0.report(run)?;
        let mut value = json(&*report);
        value["text"] = report.to_text().into();
        Some(value)
    }

    async fn cancel(&self, id: &str) -> bool {
        let Ok(run) = id.parse::<RunId>() else {
            return false;
        };
        self.0.cancel(run) || self.0.status(run).is_some()
    }
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| Value::String(error.to_string()))
}

fn refusal(error: Error, target: &str) -> ReplayRefused {
    match error {
        Error::Refused { .. } => ReplayRefused::TargetNotAllowed(target.to_owned()),
        Error::Busy { running } => ReplayRefused::TooMany(running),
        other => ReplayRefused::Invalid {
            parameter: "target",
            message: other.to_string(),
        },
    }
}
