//! A shortcut for the most frequent scan, in which no file changed. It is faster
//! because it creates no new table.

use super::compare::Comparison;
use crate::manifest::Manifest;
use std::ops::Range;

use crate::found::FoundFiles;
use crate::scan_result::{Counts, PathBytes, Scan};
use crate::skip_reason::SkipReason;
use crate::threads::both;

/// Sums over a part of the files.
#[derive(Default)]
struct Part {
    bytes: u64,
    skipped: Vec<(PathBytes, SkipReason)>,
}

/// The scan if every file is known and unchanged, and its content is in the
/// manifest or the file is skipped; else `None`. The result is the same as that
/// of [`collect`](super::collect::collect).
pub(super) fn scan_if_unchanged(
    comparison: &Comparison,
    found: &FoundFiles,
    manifest: &Manifest,
) -> Option<Scan> {
    if found.len() != manifest.files().len() {
        return None;
    }
    let middle = found.len() / 2;
    let (one, other) = both(
        || part(comparison, found, manifest, 0..middle),
        || part(comparison, found, manifest, middle..found.len()),
        || (),
    );
    let (mut one, other) = (one?, other?);
    one.skipped.extend(other.skipped);
    let counts = Counts {
        unchanged: found.len() as u64,
        skipped: one.skipped.len() as u64,
        ..Counts::default()
    };
    Some(Scan {
        files: manifest.shared_files(),
        counts,
        skipped: one.skipped,
        n_files: found.len() as u64,
        total_bytes: one.bytes.saturating_add(other.bytes),
        ..Scan::default()
    })
}

fn part(
    comparison: &Comparison,
    found: &FoundFiles,
    manifest: &Manifest,
    range: Range<usize>,
) -> Option<Part> {
    let mut part = Part::default();
    for index in range.clone() {
        let (file, entry) = (found.get(index), manifest.files().get(index));
        let is_same = file.path == entry.path
            && entry.selected
            && comparison.unusable(&file).is_none()
            && comparison.is_unchanged(&file, &entry);
        if !is_same {
            return None;
        }
        part.bytes = part.bytes.saturating_add(file.key.size);
    }
    let reason_of = manifest.reasons();
    for index in range {
        if let Some(reason) = reason_of(index)? {
            let path = manifest.files().get(index).path;
            part.skipped.push((path.into(), reason.clone()));
        }
    }
    Some(part)
}
