//! What readers of a cache need from a manifest. It serves the rows of the files
//! that are selected.

use std::collections::HashSet;

use super::tables::Manifest;
use crate::hash::Hash;
use crate::records::{Content, FileEntry, Pack};
use crate::skip_reason::SkipReason;

/// Sums over the live contents, which are those that at least one selected file
/// has. A content counts once, however many files have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Number of selected files.
    pub files: u64,
    /// Number of live contents that are not skipped.
    pub contents: u64,
    /// Number of live contents that are skipped.
    pub skipped: u64,
    /// Number of rows of live contents.
    pub rows: u64,
    /// Number of silent chunks of live contents.
    pub silent: u64,
    /// [`Content::sums`] of the live contents, added in the order of the hashes,
    /// so that the result does not depend on file names.
    pub sums: [f64; 5],
    /// Number of rows in packs that belong to no file, selected or not.
    pub dead_rows: u64,
    /// Size of all packs in bytes.
    pub pack_bytes: u64,
}

/// Location of the rows of the live contents, column by column. Contents without
/// rows are left out. The others are sorted by hash, and their segments are in
/// the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Hash of each content.
    pub hashes: Vec<Hash>,
    /// Number of silent chunks of each content.
    pub silent: Vec<i64>,
    /// Index in `hashes` of the content of each segment.
    pub content: Vec<i64>,
    /// Index of the pack of each segment.
    pub pack: Vec<i64>,
    /// First row, in its pack, of each segment.
    pub first: Vec<i64>,
    /// Number of rows of each segment.
    pub rows: Vec<i64>,
}

/// A file, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary<'a> {
    /// The file's entry.
    pub file: &'a FileEntry,
    /// Number of rows of its content, 0 if that is not computed.
    pub rows: u64,
    /// Why the file, or its content, is skipped.
    pub skipped: Option<&'a SkipReason>,
    /// Why only a part of its content is used.
    pub partial: Option<&'a SkipReason>,
}

impl Manifest {
    /// Counts and sums over the live contents.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            files: self.selected().count() as u64,
            ..Totals::default()
        };
        for (_, content) in self.contents_of(self.selected()) {
            match content.skipped {
                Some(_) => totals.skipped += 1,
                None => totals.contents += 1,
            }
            totals.rows = totals.rows.saturating_add(content.rows());
            totals.silent = totals.silent.saturating_add(content.silent);
            for (total, sum) in totals.sums.iter_mut().zip(content.sums) {
                *total += sum;
            }
        }
        let sum = |of: fn(&Pack) -> u64| {
            let values = self.packs.iter().map(of);
            values.fold(0, u64::saturating_add)
        };
        let kept = self.contents_of(self.files.iter());
        let kept = kept.iter().map(|(_, content)| content.rows());
        let kept = kept.fold(0, u64::saturating_add);
        totals.dead_rows = sum(|pack| pack.rows).saturating_sub(kept);
        totals.pack_bytes = sum(|pack| pack.bytes);
        totals
    }

    /// Location of the rows of the live contents.
    pub fn live(&self) -> Live {
        Live::of(self.contents_of(self.selected()))
    }

    /// Location of the rows of all contents that a file has, selected or not.
    pub fn kept(&self) -> Live {
        Live::of(self.contents_of(self.files.iter()))
    }

    /// The contents that no file has, selected or not.
    pub fn unused_contents(&self) -> Vec<Hash> {
        let used: HashSet<&Hash> = self
            .files
            .iter()
            .filter_map(|f| f.content.as_ref())
            .collect();
        let hashes = self.contents.keys();
        hashes
            .filter(|hash| !used.contains(hash))
            .copied()
            .collect()
    }

    /// Every selected file, with what is known of its content.
    pub fn summaries(&self) -> impl Iterator<Item = Summary<'_>> {
        self.selected().map(|file| {
            let content = file.content.as_ref().and_then(|hash| self.content(hash));
            let reason = content.and_then(|content| content.skipped.as_ref());
            Summary {
                file,
                rows: content.map_or(0, Content::rows),
                skipped: file.skipped.as_ref().or(reason),
                partial: content.and_then(|content| content.partial.as_ref()),
            }
        })
    }

    fn selected(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().filter(|file| file.selected)
    }

    /// The listed contents of some files, each once, sorted by hash.
    fn contents_of<'a>(
        &self,
        files: impl Iterator<Item = &'a FileEntry>,
    ) -> Vec<(&Hash, &Content)> {
        let mut hashes: Vec<&Hash> = files.filter_map(|f| f.content.as_ref()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let known = |hash| self.contents.get_key_value(hash);
        hashes.into_iter().filter_map(known).collect()
    }
}

impl Live {
    fn of(contents: Vec<(&Hash, &Content)>) -> Self {
        let mut live = Live::default();
        for (hash, content) in contents {
            if content.segments.is_empty() {
                continue;
            }
            let index = live.hashes.len() as i64;
            live.hashes.push(*hash);
            // No number exceeds i64::MAX: see `check`.
            live.silent.push(content.silent as i64);
            for segment in &content.segments {
                live.content.push(index);
                live.pack.push(segment.pack as i64);
                live.first.push(segment.first as i64);
                live.rows.push(segment.rows as i64);
            }
        }
        live
    }
}
