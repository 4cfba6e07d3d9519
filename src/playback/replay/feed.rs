//! Reads the selection page by page, keeps the pace, and hands the records to their lanes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lanes::Lanes;
use super::{Context, Plan, RunState, Selection};
use crate::playback::Error;
use crate::playback::pace::Schedule;
use crate::record::{Record, RecordId};
use crate::store::{Cursor, Order, Query, Store};

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
            Ok(state) => state,
            Err(error) => RunState::Failed(error.to_string()),
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
        let Some(record) = context.store.get(id).await? else {
            context.skip(id, "it is no longer in the store");
            continue;
        };
        if let Record::Exchange(exchange) = &record
            && let Some(due) = schedule.due(&exchange.origin, &exchange.timing)
        {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = context.cancel.cancelled() => return Ok(RunState::Cancelled),
            }
        }
        lanes.dispatch(Arc::new(record), room).await;
    }
    if context.cancel.is_cancelled() {
        return Ok(RunState::Cancelled);
    }
    Ok(RunState::Finished)
}

/// The ids of a selection, one after the other.
enum Source {
    Window {
        query: Query,
        page: VecDeque<RecordId>,
        more: bool,
    },
    Ids(VecDeque<RecordId>),
}

impl Source {
    fn new(plan: &Plan) -> Self {
        match &plan.selection {
            Selection::Ids(ids) => Self::Ids(ids.iter().copied().collect()),
            Selection::Window(query) => Self::Window {
                query: Query {
                    order: Order::OldestFirst,
                    cursor: None,
                    limit: PAGE,
                    ..query.clone()
                },
                page: VecDeque::new(),
                more: true,
            },
        }
    }

    async fn next(&mut self, store: &dyn Store) -> Result<Option<RecordId>, Error> {
        match self {
            Self::Ids(ids) => Ok(ids.pop_front()),
            Self::Window { query, page, more } => {
                while page.is_empty() && *more {
                    let found = store.list(query).await?;
                    page.extend(found.items.iter().map(|summary| summary.id));
                    *more = found.next.is_some();
                    query.cursor = found
                        .next
                        .or_else(|| page.back().copied().map(Cursor::after));
                }
                Ok(page.pop_front())
            }
        }
    }
}
