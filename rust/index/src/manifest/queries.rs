//! What readers of a cache need from a manifest. It serves the rows of the files
//! that are selected.

use std::borrow::Cow;

use super::tables::Manifest;
use crate::files::File;
use crate::hash::Hash;
use crate::records::{Content, Pack};
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
#[derive(Clone, Debug, PartialEq)]
pub struct Summary<'a> {
    /// The file's entry.
    pub file: File<'a>,
    /// What was computed from its content, if that is known.
    content: Option<Cow<'a, Content>>,
}

impl Summary<'_> {
    /// Number of rows of its content, 0 if that is not computed.
    pub fn rows(&self) -> u64 {
        self.content.as_ref().map_or(0, |content| content.rows())
    }

    /// Why the file, or its content, is skipped.
    pub fn skipped(&self) -> Option<&SkipReason> {
        let of_content = || self.content.as_ref()?.skipped.as_ref();
        self.file.skipped.or_else(of_content)
    }

    /// Why only a part of its content is used.
    pub fn partial(&self) -> Option<&SkipReason> {
        self.content.as_ref()?.partial.as_ref()
    }
}

impl Manifest {
    /// Counts and sums over the live contents.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            files: self.selected().count() as u64,
            ..Totals::default()
        };
        let kept = self.contents_of(|_| true);
        let live = match totals.files == self.files.len() as u64 {
            true => kept.clone(),
            false => self.contents_of(|file| file.selected),
        };
        for number in self.in_order(&live) {
            let content = self.contents.at(number);
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
        let kept = self
            .contents
            .iter()
            .zip(kept)
            .filter(|(_, is_kept)| *is_kept);
        let kept = kept.map(|((_, content), _)| content.rows());
        let kept = kept.fold(0, u64::saturating_add);
        totals.dead_rows = sum(|pack| pack.rows).saturating_sub(kept);
        totals.pack_bytes = sum(|pack| pack.bytes);
        totals
    }

    /// Location of the rows of the live contents.
    pub fn live(&self) -> Live {
        self.located(&self.contents_of(|file| file.selected))
    }

    /// Location of the rows of all contents that a file has, selected or not.
    pub fn kept(&self) -> Live {
        self.located(&self.contents_of(|_| true))
    }

    /// The contents that no file has, selected or not.
    pub fn unused_contents(&self) -> Vec<Hash> {
        let used = self.contents_of(|_| true);
        let unused = used.iter().enumerate().filter(|(_, is_used)| !**is_used);
        unused
            .map(|(number, _)| *self.contents.hash(number))
            .collect()
    }

    /// Every selected file, with what is known of its content.
    pub fn summaries(&self) -> impl Iterator<Item = Summary<'_>> {
        self.selected().map(|file| self.summary(file))
    }

    /// The selected files that are skipped or used in part, and maybe others. Takes no time
    /// where there are none.
    pub fn with_reasons(&self) -> impl Iterator<Item = Summary<'_>> {
        let number_of = self.contents.of(&self.files);
        let may_have_one = move |&(index, file): &(usize, File)| {
            let of_content = || self.contents.other(number_of(index)?);
            file.selected && (file.skipped.is_some() || of_content().is_some())
        };
        let files = self.files.iter().enumerate().filter(may_have_one);
        files.map(|(_, file)| self.summary(file))
    }

    /// Why each file is skipped, itself or its content; an inner `None` where its content is
    /// not listed.
    pub(crate) fn reasons<'a>(&'a self) -> impl Fn(usize) -> Option<Option<&'a SkipReason>> + 'a {
        let number_of = self.contents.of(&self.files);
        move |index| {
            if let Some(reason) = self.files.get(index).skipped {
                return Some(Some(reason));
            }
            let other = self.contents.other(number_of(index)?);
            Some(other.and_then(|content| content.skipped.as_ref()))
        }
    }

    fn summary<'a>(&'a self, file: File<'a>) -> Summary<'a> {
        let content = file.content.and_then(|hash| self.content(&hash));
        Summary { file, content }
    }

    fn selected(&self) -> impl Iterator<Item = File<'_>> {
        self.files.iter().filter(|file| file.selected)
    }

    /// Whether each listed content is one of some files.
    pub(super) fn contents_of(&self, is_one: impl Fn(&File) -> bool) -> Vec<bool> {
        let mut is_of_one = vec![false; self.contents.len()];
        let number_of = self.contents.of(&self.files);
        let files = self.files.iter().enumerate();
        let files = files.filter(|(_, file)| is_one(file));
        for number in files.filter_map(|(index, _)| number_of(index)) {
            is_of_one[number] = true;
        }
        is_of_one
    }

    /// The numbers of some contents, in the order of their hashes.
    fn in_order<'a>(&self, is_wanted: &'a [bool]) -> impl Iterator<Item = usize> + 'a {
        let numbers = self.contents.sorted().into_iter().map(|n| n as usize);
        numbers.filter(|&number| is_wanted[number])
    }

    fn located(&self, is_wanted: &[bool]) -> Live {
        let mut live = Live::default();
        for number in self.in_order(is_wanted) {
            let content = self.contents.at(number);
            if content.segments.is_empty() {
                continue;
            }
            let index = live.hashes.len() as i64;
            live.hashes.push(*self.contents.hash(number));
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
