//! Coverage that several players settle together: each adds what is new to it, on the server, in one step.
//!
//! Whole rows that overwrite each other would undo what another player has just settled; what one player knows to be
//! dropped or lost could then be counted twice, or not at all. Adding is idempotent: a batch that is put again counts
//! nothing again.

use redis::{Pipeline, Value, cmd};

use super::Redis;
use crate::store::{Batch, Error, News, Settled, settled};

/// Adds ranges to a row, in the stored form of [`settled`], and counts the dropped and lost numbers that were new to it.
///
/// A row that cannot be read, or that a newer program wrote, begins anew: what it settled is asked for again. Replies with
/// how many numbers the row has settled.
const ADD: &str = r"
local raw = redis.call('HGET', KEYS[1], ARGV[1])
local row = nil
if raw then
  local read, value = pcall(cmsgpack.unpack, raw)
  if read and type(value) == 'table' and value[1] == 1 then row = value end
end
row = row or {1, 0, {}, 0, 0}
local mark, above = row[2], row[3]
local function settle(first, last)
  if first <= mark then first = mark + 1 end
  if last < first then return 0 end
  local new, low, high = last - first + 1, first, last
  local merged, placed = {}, false
  for _, range in ipairs(above) do
    if range[2] + 1 < first then
      merged[#merged + 1] = range
    elseif range[1] > last + 1 then
      if not placed then merged[#merged + 1] = {low, high}; placed = true end
      merged[#merged + 1] = range
    else
      local from, to = math.max(range[1], first), math.min(range[2], last)
      if from <= to then new = new - (to - from + 1) end
      low, high = math.min(low, range[1]), math.max(high, range[2])
    end
  end
  if not placed then merged[#merged + 1] = {low, high} end
  if merged[1][1] == mark + 1 then
    mark = merged[1][2]
    table.remove(merged, 1)
  end
  above = merged
  return new
end
local at = 2
local function settle_all()
  local count, new = tonumber(ARGV[at]), 0
  at = at + 1
  for _ = 1, count do
    new = new + settle(tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
    at = at + 2
  end
  return new
end
local dropped = row[4] + settle_all()
local lost = row[5] + settle_all()
settle_all()
redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack({1, mark, above, dropped, lost}))
local settled = mark
for _, range in ipairs(above) do settled = settled + range[2] - range[1] + 1 end
return settled
";

impl Redis {
    /// The commands that add a batch's news to the coverage, each with a reply, and remove what is forgotten.
    pub(super) fn add_coverage(&self, pipeline: &mut Pipeline, batch: &Batch) {
        for news in &batch.news {
            let command = pipeline.cmd("EVAL").arg(ADD).arg(1);
            command.arg(self.keys.coverage());
            command.arg(settled::name(&news.node, news.epoch));
            let News {
                dropped,
                lost,
                arrived,
                ..
            } = news;
            for kind in [dropped, lost, arrived] {
                command.arg(kind.ranges().count());
                for range in kind.ranges() {
                    command.arg(range.first).arg(range.last);
                }
            }
        }
        for (node, epoch) in &batch.forgotten {
            let command = pipeline.cmd("HDEL").arg(self.keys.coverage());
            command.arg(settled::name(node, *epoch)).ignore();
        }
    }

    /// Whether Redis has less of a life than the batch says, by the replies to [`Redis::add_coverage`]: restarted in between,
    /// flushed, or another server in its place.
    pub(super) fn is_behind(batch: &Batch, replies: &[Value]) -> bool {
        let mut rows = batch.news.iter().zip(replies);
        rows.any(|(news, reply)| {
            let Value::Int(settled) = reply else {
                return false;
            };
            let settled = u64::try_from(*settled).unwrap_or(0);
            let of_it = |life: &&Settled| life.node == news.node && life.epoch == news.epoch;
            let said = batch.settled.iter().find(of_it);
            said.is_some_and(|life| {
                let ranges = life.coverage.ranges();
                settled < ranges.map(|range| range.count()).sum()
            })
        })
    }

    pub(super) async fn read_settled(&self) -> Result<Vec<Settled>, Error> {
        let all: Vec<(Vec<u8>, Vec<u8>)> =
            self.ask(cmd("HGETALL").arg(self.keys.coverage())).await?;
        let mut lives = Vec::with_capacity(all.len());
        for (name, bytes) in all {
            match settled::decode(&String::from_utf8_lossy(&name), &bytes) {
                Some(life) => lives.push(life),
                None => {
                    // That life is asked for again, and what is there already is not stored twice.
                    self.metrics.unreadable.inc();
                    tracing::error!("the coverage of one life cannot be read; it begins anew");
                }
            }
        }
        lives.sort_by(|a, b| (&a.node, a.epoch).cmp(&(&b.node, b.epoch)));
        Ok(lives)
    }
}
