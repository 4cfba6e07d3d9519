//! Reads the selection page by page, keeps the pace, and hands the records to their lanes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lanes::Lanes;
use super::{Context, Plan, RunState, Selection};
use crate::playback::pace::Schedule;
use crate::playback::{Error, described};
use crate::record::{Record, RecordId};
use crate::store::{self, Filter, Order, Query, Store};

/// How many summaries are read at once.
const PAGE: usize = 200;

/// Replays a plan to its end.
pub(super) async fn run(context: &Arc<Context>, plan: &Plan) -> RunState {
    let mut lanes = Lanes::new(context.clone());
    for _ in 0..plan.rounds {
        let round = round(context, plan, &mut lanes).await;
        lanes.drain().await;
        context.carry.clear();
        let state = match round {
            // It may have been told to stop while the last records were on their way.
            Ok(_) if context.cancel.is_cancelled() => RunState::Cancelled,
            Ok(state) => state,
            Err(error) => RunState::Failed(described(&error)),
        };
        if state != RunState::Finished {
            return state;
        }
    }
    RunState::Finished
}

async fn round(context: &Arc<Context>, plan: &Plan, lanes: &mut Lanes) -> Result<RunState, Error> {
    let mut source = Source::new(plan);
    let now = tokio::time::Instant::now().into_std();
    let mut schedule = Schedule::new(plan.speed, now);
    let mut left = plan.max_records.unwrap_or(u64::MAX);
    while left > 0 {
        left -= 1;
        let Some(room) = lanes.room().await else {
            return Ok(RunState::Cancelled);
        };
        if context.is_hopeless() {
            let target = &context.sending.target;
            return Ok(RunState::Failed(format!("{target} cannot be reached")));
        }
        let Some(id) = source.next(&*context.store).await? else {
            break;
        };
        let record = match context.store.get(id).await {
            Ok(Some(record)) => record,
            Ok(None) => {
                context.skip(id, "it is no longer in the store");
                continue;
            }
            Err(store::Error::Sealed { source, .. }) => {
                context.skip(id, &format!("it is sealed: {source}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let timing = match &record {
            Record::Exchange(exchange) => &exchange.timing,
            Record::Stream(stream) => &stream.timing,
        };
        if let Some(due) = schedule.due(record.origin(), timing) {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = context.cancel.cancelled() => return Ok(RunState::Cancelled),
            }
        }
        lanes.dispatch(Arc::new(record), room).await;
    }
    Ok(RunState::Finished)
}

/// The ids of a selection, one after the other.
///
/// A window ends with the newest record that it held when the round began, so that a round ends though more
/// arrive all the time.
enum Source {
    Window {
        query: Box<Query>,
        page: VecDeque<RecordId>,
        newest: Option<RecordId>,
        more: bool,
    },
    Ids(VecDeque<RecordId>),
}

impl Source {
    fn new(plan: &Plan) -> Self {
        match &plan.selection {
            Selection::Ids(ids) => Self::Ids(ids.iter().copied().collect()),
            Selection::Window(query) => Self::Window {
                query: Box::new(Query {
                    order: Order::OldestFirst,
                    cursor: None,
                    limit: PAGE,
                    ..query.clone()
                }),
                page: VecDeque::new(),
                newest: None,
                more: true,
            },
        }
    }

    async fn next(&mut self, store: &dyn Store) -> Result<Option<RecordId>, Error> {
        match self {
            Self::Ids(ids) => Ok(ids.pop_front()),
            Self::Window {
                query,
                page,
                newest,
                more,
            } => {
                if newest.is_none() {
                    *newest = newest_of(query, store).await?;
                    *more = newest.is_some();
                }
                while page.is_empty() && *more {
                    let found = store.list(query).await?;
                    let ids = found.items.iter().map(|summary| summary.id);
                    page.extend(ids.take_while(|id| Some(*id) <= *newest));
                    *more = found.next.is_some() && page.len() == found.items.len();
                    query.cursor = found.next;
                }
                Ok(page.pop_front())
            }
        }
    }
}

/// The newest record of a window, whether or not the filter wants it.
async fn newest_of(window: &Query, store: &dyn Store) -> Result<Option<RecordId>, Error> {
    let mut query = Query {
        order: Order::NewestFirst,
        limit: 1,
        filter: Filter::default(),
        ..window.clone()
    };
    loop {
        let page = store.list(&query).await?;
        if let Some(newest) = page.items.first() {
            return Ok(Some(newest.id));
        }
        // A store may give out a page early, with nothing on it.
        if page.next.is_none() {
            return Ok(None);
        }
        query.cursor = page.next;
    }
}
