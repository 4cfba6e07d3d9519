//! A report for the terminal.

use std::fmt::{self, Display, Write as _};

use super::{Percentiles, ReasonGroup, Report};
use crate::playback::diff::Part;

/// How many rows of each table are shown.
const ROWS: usize = 20;

impl Report {
    /// The report as plain text, for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text)
            .expect("formatting into a string cannot fail");
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let totals = &self.totals;
        writeln!(out, "replay {} to {}", self.run, self.target)?;
        let finished = self.finished.as_deref().unwrap_or("-");
        writeln!(
            out,
            "{}: started {}, finished {finished}",
            self.state, self.started
        )?;
        writeln!(
            out,
            "{} records, {} sent: {} same, {} different, {} failed, {} skipped, {} answered from the record\n",
            totals.records,
            totals.sent,
            totals.same,
            totals.different,
            totals.failed,
            totals.skipped,
            totals.answered_from_record
        )?;
        self.write_latency(out)?;
        let rows = self.endpoints.iter().map(|e| {
            [
                e.endpoint.clone(),
                e.same.to_string(),
                e.different.to_string(),
                e.failed.to_string(),
                (e.skipped + e.answered_from_record).to_string(),
            ]
        });
        table(
            out,
            ["endpoint", "same", "different", "failed", "not sent"],
            rows,
        )?;
        let rows = self.differences.iter().map(|group| {
            let example = group.examples.first();
            let side = |value: Option<&Option<String>>| match value {
                Some(Some(text)) => brief(text),
                _ => "-".to_owned(),
            };
            [
                brief(&group.endpoint),
                format!("{} {}", part_name(group.part), group.path),
                group.count.to_string(),
                side(example.map(|e| &e.recorded)),
                side(example.map(|e| &e.replayed)),
            ]
        });
        table(
            out,
            ["endpoint", "differs at", "count", "recorded", "replayed"],
            rows,
        )?;
        reasons(out, "failed because", &self.failures)?;
        reasons(out, "skipped because", &self.skips)?;
        reasons(out, "note", &self.notes)
    }

    fn write_latency(&self, out: &mut String) -> fmt::Result {
        let row = |name: &str, p: &Percentiles| {
            let ms = |us: u64| format!("{:.1} ms", us as f64 / 1000.0);
            [
                name.to_owned(),
                ms(p.p50_us),
                ms(p.p90_us),
                ms(p.p99_us),
                ms(p.max_us),
            ]
        };
        let rows = [
            row("recorded", &self.latency.recorded),
            row("replayed", &self.latency.replayed),
        ];
        table(
            out,
            ["first byte", "p50", "p90", "p99", "max"],
            rows.into_iter(),
        )
    }
}

const fn part_name(part: Part) -> &'static str {
    match part {
        Part::Status => "status",
        Part::Header => "header",
        Part::Body => "body",
        Part::Stream => "stream",
    }
}

fn reasons(out: &mut String, head: &str, groups: &[ReasonGroup]) -> fmt::Result {
    let rows = groups.iter().map(|group| {
        let example = group.examples.first();
        [
            brief(&group.reason),
            group.count.to_string(),
            example.map(ToString::to_string).unwrap_or_default(),
        ]
    });
    table(out, [head, "count", "for example"], rows)
}

/// Columns as wide as their widest cell; nothing where there is no row.
fn table<const N: usize>(
    out: &mut String,
    head: [&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) -> fmt::Result {
    let all = rows.len();
    if all == 0 {
        return Ok(());
    }
    let rows: Vec<_> = rows.take(ROWS).collect();
    let mut widths = head.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(out, &head, &widths)?;
    for row in &rows {
        line(out, row, &widths)?;
    }
    if all > rows.len() {
        writeln!(out, "… and {} more", all - rows.len())?;
    }
    out.write_char('\n')
}

fn line<const N: usize>(
    out: &mut String,
    cells: &[impl Display; N],
    widths: &[usize; N],
) -> fmt::Result {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        write!(text, "{cell:<width$}  ")?;
    }
    writeln!(out, "{}", text.trim_end())
}

/// Short and without control characters: what a service sends must not steer the terminal.
fn brief(text: &str) -> String {
    let short = text.chars().take(48);
    short
        .map(|c| if c.is_control() { '�' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::collect::tests::{collector, different};
    use crate::playback::RunState;

    #[test]
    fn shows_what_differs_and_how_often_and_no_control_characters() {
        let mut collector = collector();
        for n in 0..30 {
            let mut result = different(&format!("/p{n}"), "/price");
            result.differences[0].replayed = Some("\u{1b}[31mred".into());
            collector.add(&result);
        }
        let text = collector.report(RunState::Finished, None).to_text();
        assert!(
            text.contains("30 records, 30 sent: 0 same, 30 different"),
            "{text}"
        );
        assert!(text.contains("GET /p0 "), "{text}");
        assert!(text.contains("body /price"), "{text}");
        assert!(text.contains("… and 10 more"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
