//! What a reader of the cache asks a manifest for.

use super::{Content, FileEntry, Manifest};
use crate::hash::Hash;

/// Sums over the live contents: those that a file has, each counted once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Files in the table.
    pub files: u64,
    /// Live contents that are not skipped.
    pub contents: u64,
    /// Live contents that are skipped.
    pub skipped: u64,
    /// Their rows.
    pub rows: u64,
    /// Their silent chunks.
    pub silent: u64,
    /// Their sums, added in the order of the hashes, so that the result does
    /// not depend on what the files are called.
    pub sums: [f64; 5],
    /// Rows of the packs that belong to no live content.
    pub dead_rows: u64,
    /// Size of all packs.
    pub pack_bytes: u64,
}

/// The live contents that have rows, by column and in the order of the hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The hashes.
    pub hashes: Vec<Hash>,
    /// (content, pack, first row, rows) of each segment.
    pub segments: Vec<[u64; 4]>,
    /// Silent chunks of each content.
    pub silent: Vec<u64>,
}

/// A file, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary<'a> {
    /// The file's entry.
    pub file: &'a FileEntry,
    /// Rows of its content, 0 if that is not computed.
    pub rows: u64,
    /// Why it, or its content, is skipped.
    pub skipped: Option<&'a str>,
}

impl Manifest {
    /// Counts and sums over what is live.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            files: self.files.len() as u64,
            ..Totals::default()
        };
        for (_, content) in self.live_contents() {
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
        let sum = |of: fn(&super::Pack) -> u64| {
            let values = self.packs.iter().map(of);
            values.fold(0, u64::saturating_add)
        };
        totals.dead_rows = sum(|pack| pack.rows).saturating_sub(totals.rows);
        totals.pack_bytes = sum(|pack| pack.bytes);
        totals
    }

    /// Where the live rows are.
    pub fn live(&self) -> Live {
        let mut live = Live::default();
        for (hash, content) in self.live_contents() {
            if content.segments.is_empty() {
                continue;
            }
            let index = live.hashes.len() as u64;
            live.hashes.push(*hash);
            live.silent.push(content.silent);
            let rows = content.segments.iter();
            live.segments
                .extend(rows.map(|s| [index, s.pack, s.first, s.rows]));
        }
        live
    }

    /// Every file with what is known of its content.
    pub fn summaries(&self) -> impl Iterator<Item = Summary<'_>> {
        self.files.iter().map(|file| {
            let content = file.content.as_ref().and_then(|hash| self.content(hash));
            let reason = content.and_then(|content| content.skipped.as_deref());
            Summary {
                file,
                rows: content.map_or(0, Content::rows),
                skipped: file.skipped.as_deref().or(reason),
            }
        })
    }

    fn live_contents(&self) -> Vec<(&Hash, &Content)> {
        let mut hashes: Vec<&Hash> = self
            .files
            .iter()
            .filter_map(|f| f.content.as_ref())
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        let known = |hash| self.contents.get_key_value(hash);
        hashes.into_iter().filter_map(known).collect()
    }
}
