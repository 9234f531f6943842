//! The rules for the records of a manifest, in memory and in a file.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::hash::Hash;
use crate::records::{Content, Pack, Segment};

/// Sizes and counts must fit a signed 64-bit integer, which Python arrays use.
const MAX_COUNT: u64 = i64::MAX as u64;

/// A header usually has 2 KiB. The limit bounds the cost of parsing a damaged one.
const MAX_HEADER_BYTES: usize = 64 << 10;

type Check = Result<(), String>;

/// Checks that the header is a JSON object of limited size.
pub(super) fn header(json: &str) -> Check {
    if json.len() > MAX_HEADER_BYTES {
        return Err(format!(
            "header of {} bytes exceeds the limit of {MAX_HEADER_BYTES}",
            json.len()
        ));
    }
    let value: &RawValue =
        serde_json::from_str(json).map_err(|error| format!("header is not JSON: {error}"))?;
    match value.get().starts_with('{') {
        true => Ok(()),
        false => Err("header must be a JSON object".into()),
    }
}

/// Checks that a pack's name is a plain file name and its checksum 64 hex digits.
pub(super) fn pack(pack: &Pack) -> Check {
    let name = pack.name.as_str();
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(format!("pack name {name:?} must be a plain file name"));
    }
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if pack.checksum.len() != 64 || !pack.checksum.bytes().all(is_hex) {
        return Err(format!("pack {name:?}: checksum must be 64 hex digits"));
    }
    if pack.rows > MAX_COUNT || pack.bytes > MAX_COUNT {
        return Err(format!("pack {name:?}: rows or bytes exceed {MAX_COUNT}"));
    }
    Ok(())
}

/// Checks that a content's rows are inside its packs, its sums finite, and that it is
/// not skipped and used at once.
pub(super) fn content(content: &Content, packs: &[Pack]) -> Check {
    for segment in &content.segments {
        self::segment(segment, packs)?;
    }
    if content.skipped.is_some() && !content.segments.is_empty() {
        return Err("a skipped content must have no segments".into());
    }
    if content.skipped.is_some() && content.partial.is_some() {
        return Err("a skipped content must not be one that is used in part".into());
    }
    if content.silent > MAX_COUNT {
        return Err(format!("silent={} exceeds {MAX_COUNT}", content.silent));
    }
    silent_runs(content)?;
    match content.sums.iter().all(|sum| sum.is_finite()) {
        true => Ok(()),
        false => Err(format!("sums={:?} must be finite", content.sums)),
    }
}

/// Checks that runs of silent chunks are in order, apart from each other, and as many
/// chunks as are silent.
fn silent_runs(content: &Content) -> Check {
    let (mut end, mut silent) = (0, 0_u64);
    for &(first, chunks) in &content.silent_runs {
        let next = first.checked_add(chunks).filter(|&next| next <= MAX_COUNT);
        let is_after = first >= end && (first > end || end == 0);
        let Some(next) = next.filter(|_| chunks > 0 && is_after) else {
            return Err(format!(
                "silent_runs: {chunks} chunks from {first} do not follow those before {end}"
            ));
        };
        silent += chunks;
        end = next;
    }
    match content.silent_runs.is_empty() || silent == content.silent {
        true => Ok(()),
        false => Err(format!(
            "silent_runs have {silent} chunks, silent={}",
            content.silent
        )),
    }
}

fn segment(segment: &Segment, packs: &[Pack]) -> Check {
    let Segment { pack, first, rows } = *segment;
    let held = usize::try_from(pack).ok().and_then(|i| packs.get(i));
    let Some(held) = held else {
        return Err(format!(
            "segment refers to pack {pack}, but there are {} packs",
            packs.len()
        ));
    };
    let end = first.checked_add(rows);
    if rows == 0 || end.is_none_or(|end| end > held.rows) {
        return Err(format!(
            "segment of {rows} rows from {first} is not inside the {} rows of pack {:?}",
            held.rows, held.name
        ));
    }
    Ok(())
}

/// Checks the rules for all packs and contents together: totals fit their type,
/// and no row belongs to two contents.
pub(super) fn whole<'a>(
    packs: &[Pack],
    contents: impl Iterator<Item = (&'a Hash, Cow<'a, Content>)>,
) -> Check {
    let sum = |of: fn(&Pack) -> u64| {
        let mut counts = packs.iter().map(of);
        counts.try_fold(0, |sum: u64, n| {
            sum.checked_add(n).filter(|&n| n <= MAX_COUNT)
        })
    };
    if sum(|pack| pack.rows).is_none() || sum(|pack| pack.bytes).is_none() {
        return Err(format!("the packs' rows or bytes exceed {MAX_COUNT}"));
    }
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    for (_, content) in contents {
        let segments = content.segments.iter();
        runs.extend(segments.map(|s| (s.pack, s.first, s.rows)));
    }
    runs.sort_unstable();
    let overlaps = |pair: &[(u64, u64, u64)]| {
        let [(pack, first, rows), (next_pack, next_first, _)] = pair else {
            return false;
        };
        pack == next_pack && first + rows > *next_first
    };
    match runs.windows(2).find(|pair| overlaps(pair)) {
        Some(pair) => Err(format!(
            "row {} of pack {} belongs to two contents",
            pair[1].1, pair[1].0
        )),
        None => Ok(()),
    }
}
