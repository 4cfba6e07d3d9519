//! A page of entries in the order of their ids, merged from all files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use super::index::{Index, Sealed};
use super::log::Shared;
use super::rows::{Entries, Slot};
use super::{Ids, Order, Position};

/// Whether metas are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metas {
    Copy,
    Skip,
}

/// What a page asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) kind: u8,
    pub(super) order: Order,
    pub(super) limit: usize,
    pub(super) metas: Metas,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: u128,
    pub(super) fingerprint: u128,
    pub(super) position: Position,
    meta: Range<usize>,
}

/// Entries, and where to go on; fewer than asked for, or none, does not mean that this was the last page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) lines: Vec<Line>,
    metas: Vec<u8>,
    pub(super) rest: Option<Ids>,
}

impl Page {
    pub(super) fn meta(&self, line: &Line) -> &[u8] {
        &self.metas[line.meta.clone()]
    }
}

impl Shared {
    pub(super) fn page(&self, question: Question, ids: &Ids) -> Page {
        let mut page = Page {
            lines: Vec::new(),
            metas: Vec::new(),
            rest: None,
        };
        let index = self.index.read();
        let first = (*ids.start()).max(index.hidden_below(question.kind));
        let mut wanted = first..=*ids.end();
        if wanted.is_empty() {
            return page;
        }
        let fresh = Fresh::copy(&index, question, &wanted);
        let number = index.active.number();
        let archive = index.archive.clone();
        drop(index);
        if let Some(edge) = fresh.edge(question.limit) {
            // What the active file has behind this was not copied.
            page.rest = behind(&wanted, edge, question.order);
            wanted = match question.order {
                Order::Oldest => *wanted.start()..=edge,
                Order::Newest => edge..=*wanted.end(),
            };
        }
        let mut merge = Merge::new(question, &wanted, archive.files(), &fresh);
        let mut last = None;
        while let Some((id, slot, file)) = merge.next() {
            // Of equal ids the newest file's comes first, and tells alone.
            if last.replace(id) == Some(id) || slot.is_tombstone() {
                continue;
            }
            let meta = match (question.metas, file) {
                (Metas::Skip, _) => &[][..],
                (Metas::Copy, Some(file)) => file.rows.meta(&slot),
                (Metas::Copy, None) => fresh.meta(&slot),
            };
            let start = page.metas.len();
            page.metas.extend_from_slice(meta);
            page.lines.push(Line {
                id,
                fingerprint: slot.fingerprint,
                position: Position {
                    segment: file.map_or(number, |file| file.number()),
                    offset: u64::from(slot.offset),
                },
                meta: start..page.metas.len(),
            });
            if page.lines.len() == question.limit {
                page.rest = behind(ids, id, question.order);
                break;
            }
        }
        page
    }
}

/// What the active file has to say, copied under the lock.
struct Fresh {
    entries: Vec<(u128, Slot)>,
    metas: Vec<u8>,
}

impl Fresh {
    fn copy(index: &Index, question: Question, ids: &Ids) -> Self {
        let mut fresh = Self {
            entries: Vec::new(),
            metas: Vec::new(),
        };
        let rows = &index.active.rows;
        let entries = rows.in_order(question.kind, *ids.start(), *ids.end(), question.order);
        for (id, mut slot) in entries.take(question.limit) {
            if question.metas == Metas::Copy {
                let meta = rows.meta(&slot);
                // Copied metas are a part of those in the active file, whose places fit.
                slot.meta_at = u32::try_from(fresh.metas.len()).unwrap_or(u32::MAX);
                fresh.metas.extend_from_slice(meta);
            }
            fresh.entries.push((id, slot));
        }
        fresh
    }

    /// The last id that was copied, where there may be more.
    fn edge(&self, limit: usize) -> Option<u128> {
        let last = self.entries.last().map(|entry| entry.0);
        last.filter(|_| self.entries.len() == limit)
    }

    fn meta(&self, slot: &Slot) -> &[u8] {
        let start = slot.meta_at as usize;
        &self.metas[start..start + usize::from(slot.meta_len)]
    }
}

/// One file's part in a merge.
struct Source<'a> {
    file: Option<&'a Arc<Sealed>>,
    /// `None` until the merge comes to its first id: a file that is not reached is not touched.
    entries: Option<Entries<'a>>,
    head: Option<(u128, Slot)>,
}

/// What several files say of ids, in order; of equal ids the newest file's first.
struct Merge<'a> {
    kind: u8,
    order: Order,
    first: u128,
    last: u128,
    sources: Vec<Source<'a>>,
    heap: BinaryHeap<Reverse<(u128, Reverse<usize>)>>,
}

impl<'a> Merge<'a> {
    fn new(question: Question, ids: &Ids, files: &'a [Arc<Sealed>], fresh: &'a Fresh) -> Self {
        let mut merge = Self {
            kind: question.kind,
            order: question.order,
            first: *ids.start(),
            last: *ids.end(),
            sources: Vec::new(),
            heap: BinaryHeap::new(),
        };
        for file in files {
            let span = file.rows.span(question.kind);
            let Some((low, high)) = span.filter(|s| s.0 <= merge.last && s.1 >= merge.first) else {
                continue;
            };
            // Where its first id lies at the nearest.
            let nearest = match merge.order {
                Order::Oldest => low.max(merge.first),
                Order::Newest => high.min(merge.last),
            };
            merge.add(nearest, Some(file), None);
        }
        let mut entries = fresh.entries.iter().copied();
        if let Some(head) = entries.next() {
            let source = (Box::new(entries) as Entries<'a>, head);
            merge.add(head.0, None, Some(source));
        }
        merge
    }

    fn add(
        &mut self,
        id: u128,
        file: Option<&'a Arc<Sealed>>,
        begun: Option<(Entries<'a>, (u128, Slot))>,
    ) {
        let (entries, head) = begun.map_or((None, None), |(e, head)| (Some(e), Some(head)));
        let number = self.sources.len();
        self.sources.push(Source {
            file,
            entries,
            head,
        });
        self.push(id, number);
    }

    fn push(&mut self, id: u128, source: usize) {
        let rank = match self.order {
            Order::Oldest => id,
            Order::Newest => !id,
        };
        self.heap.push(Reverse((rank, Reverse(source))));
    }

    fn next(&mut self) -> Option<(u128, Slot, Option<&'a Arc<Sealed>>)> {
        loop {
            let Reverse((_, Reverse(number))) = self.heap.pop()?;
            let source = &mut self.sources[number];
            let given = source.head.take();
            let entries = match (&mut source.entries, source.file) {
                (Some(entries), _) => entries,
                (None, Some(file)) => {
                    let rows = &file.rows;
                    source
                        .entries
                        .insert(rows.range(self.kind, self.first, self.last, self.order))
                }
                (None, None) => continue,
            };
            source.head = entries.next();
            let (next, file) = (source.head, source.file);
            if let Some((id, _)) = next {
                self.push(id, number);
            }
            if let Some((id, slot)) = given {
                return Some((id, slot, file));
            }
        }
    }
}

/// The part of `ids` that comes after `id`; `None` where nothing is left.
fn behind(ids: &Ids, id: u128, order: Order) -> Option<Ids> {
    let rest = match order {
        Order::Oldest => id.checked_add(1)?..=*ids.end(),
        Order::Newest => *ids.start()..=id.checked_sub(1)?,
    };
    (!rest.is_empty()).then_some(rest)
}
