//! Two texts, compared by lines; two byte strings, compared by the first place at which they part.

use super::{Difference, Found, Part};

/// Adds the first line that differs, and how many lines do between what is the same at both ends.
pub(super) fn compare_lines(old: &str, new: &str, found: &mut Found) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let room = old.len().min(new.len()) - start;
    let backwards = old.iter().rev().zip(new.iter().rev());
    let end = backwards.take(room).take_while(|(a, b)| a == b).count();
    let (removed, added) = (old.len() - start - end, new.len() - start - end);
    if removed == 0 && added == 0 {
        return;
    }
    let first = |lines: &[&str], count: usize| (count > 0).then(|| lines[start].to_owned());
    let (old, new) = (first(&old, removed), first(&new, added));
    let path = format!("line {}", start + 1);
    found.push(Difference::new(
        Part::Body,
        &path,
        old.as_deref(),
        new.as_deref(),
    ));
    found.note(format!(
        "text: {removed} lines recorded, {added} lines now in their place"
    ));
}

/// Adds the first byte that differs.
pub(super) fn compare_bytes(old: &[u8], new: &[u8], found: &mut Found) {
    let at = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    if at == old.len() && at == new.len() {
        return;
    }
    let show = |bytes: &[u8]| {
        let byte = bytes.get(at)?;
        Some(format!("0x{byte:02x} of {} bytes", bytes.len()))
    };
    let (old, new) = (show(old), show(new));
    let path = format!("byte {at}");
    found.push(Difference::new(
        Part::Body,
        &path,
        old.as_deref(),
        new.as_deref(),
    ));
}
