//! The replays of this node: start, look, cancel, wait. The newest are remembered after they ended.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Config, Context, Plan, Progress, ResultSink, RunId, RunState, Selection, feed};
use crate::playback::report::Report;
use crate::playback::{Error, Metrics};
use crate::store::Store;

/// All replays; cheap to clone.
#[derive(Clone)]
pub struct Runs(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    config: Config,
    sink: Arc<dyn ResultSink>,
    metrics: Metrics,
    runs: Mutex<VecDeque<Arc<Run>>>,
    tasks: TaskTracker,
}

struct Run {
    id: RunId,
    stage: watch::Sender<Stage>,
}

#[derive(Clone)]
enum Stage {
    Active(Arc<Context>),
    Ended(Arc<Report>),
}

impl Runs {
    /// Reads from `store`, tells `sink` what comes of each record.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        config: Config,
        sink: Arc<dyn ResultSink>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            config,
            sink,
            metrics,
            runs: Mutex::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Starts a run in the background.
    ///
    /// # Errors
    /// [`Error::Refused`] where the target is not allowed, [`Error::Setting`] where the plan is out of range,
    /// [`Error::Busy`] where too many runs are under way.
    pub fn start(&self, plan: Plan) -> Result<RunId, Error> {
        self.0.check(&plan)?;
        let context = Context::new(
            self.0.store.clone(),
            &self.0.config,
            plan.sending.clone(),
            self.0.sink.clone(),
            self.0.metrics.clone(),
        )?;
        let context = Arc::new(context.paced(plan.speed));
        let id = context.run;
        let run = Arc::new(Run {
            id,
            stage: watch::Sender::new(Stage::Active(context.clone())),
        });
        self.0.remember(run.clone())?;
        self.0.metrics.runs_active.inc();
        let inner = self.0.clone();
        self.0.tasks.spawn(async move {
            tracing::info!(run = %context.run, target = %plan.sending.target, "replay started");
            let state = feed::run(&context, &plan).await;
            inner.end(&run, &context, state);
        });
        Ok(id)
    }

    /// How far a run is.
    #[must_use]
    pub fn status(&self, id: RunId) -> Option<Progress> {
        self.0.find(id).map(|run| run.progress())
    }

    /// What came of a run so far.
    #[must_use]
    pub fn report(&self, id: RunId) -> Option<Arc<Report>> {
        self.0.find(id).map(|run| run.report())
    }

    /// Stops a run; what is on its way is given up. Tells whether it was under way.
    pub fn cancel(&self, id: RunId) -> bool {
        let run = self.0.find(id);
        run.is_some_and(|run| match &*run.stage.borrow() {
            Stage::Active(context) => {
                context.cancel.cancel();
                true
            }
            Stage::Ended(_) => false,
        })
    }

    /// Every run that is remembered, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Progress> {
        let runs = self.0.runs.lock();
        runs.iter().rev().map(|run| run.progress()).collect()
    }

    /// Waits for the end of a run; `None` where there is no such run.
    pub async fn wait(&self, id: RunId) -> Option<Arc<Report>> {
        let run = self.0.find(id)?;
        let mut stage = run.stage.subscribe();
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ended(_)));
        match &*ended.await.ok()? {
            Stage::Ended(report) => Some(report.clone()),
            Stage::Active(_) => None,
        }
    }

    /// Cancels every run and waits until they have ended.
    pub async fn shutdown(&self) {
        let ids: Vec<RunId> = self.0.runs.lock().iter().map(|run| run.id).collect();
        for id in ids {
            self.cancel(id);
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn check(&self, plan: &Plan) -> Result<(), Error> {
        plan.speed.check()?;
        let setting = |key, value: String, rule| Err(Error::Setting { key, value, rule });
        if plan.rounds == 0 {
            return setting("rounds", "0".to_owned(), "at least one round is replayed");
        }
        match &plan.selection {
            Selection::Ids(ids) if ids.len() > self.config.max_ids => setting(
                "ids",
                format!("{} ids", ids.len()),
                "that is more than one run may list: use a window of time",
            ),
            _ => Ok(()),
        }
    }

    /// Adds a run, and forgets the oldest that ended where there are too many.
    fn remember(&self, run: Arc<Run>) -> Result<(), Error> {
        let mut runs = self.runs.lock();
        let running = runs.iter().filter(|run| run.is_active()).count();
        if running >= self.config.max_running {
            return Err(Error::Busy { running });
        }
        while runs.len() >= self.config.history.max(self.config.max_running) {
            let Some(oldest) = runs.iter().position(|run| !run.is_active()) else {
                break;
            };
            runs.remove(oldest);
        }
        runs.push_back(run);
        Ok(())
    }

    fn find(&self, id: RunId) -> Option<Arc<Run>> {
        let runs = self.runs.lock();
        runs.iter().find(|run| run.id == id).cloned()
    }

    fn end(&self, run: &Run, context: &Context, state: RunState) {
        let outcome = match &state {
            RunState::Running | RunState::Finished => "finished",
            RunState::Cancelled => "cancelled",
            RunState::Failed(_) => "failed",
        };
        tracing::info!(run = %run.id, %state, "replay ended");
        let report = Arc::new(context.report(state, Some(Timestamp::now())));
        context.finished(&report);
        run.stage.send_replace(Stage::Ended(report));
        Metrics::count(&self.metrics.runs, outcome);
        self.metrics.runs_active.dec();
    }
}

impl Run {
    fn is_active(&self) -> bool {
        matches!(&*self.stage.borrow(), Stage::Active(_))
    }

    fn report(&self) -> Arc<Report> {
        match &*self.stage.borrow() {
            Stage::Active(context) => Arc::new(context.report(RunState::Running, None)),
            Stage::Ended(report) => report.clone(),
        }
    }

    fn progress(&self) -> Progress {
        match &*self.stage.borrow() {
            Stage::Active(context) => Progress {
                run: self.id,
                target: context.sending.target.to_string(),
                state: RunState::Running,
                started: context.started().to_string(),
                finished: None,
                totals: context.totals(),
            },
            Stage::Ended(report) => Progress {
                run: self.id,
                target: report.target.clone(),
                state: report.state.clone(),
                started: report.started.clone(),
                finished: report.finished.clone(),
                totals: report.totals,
            },
        }
    }
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs")
            .field("remembered", &self.0.runs.lock().len())
            .finish_non_exhaustive()
    }
}
