//! A table of source files, column by column: a million files take 100 MB.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hash::Hash;
use crate::path::check_relative;
use crate::paths::Paths;
use crate::skip_reason::SkipReason;
use crate::stat::StatKey;

const HAS_CONTENT: u8 = 1;
const RACY: u8 = 2;
const UNSELECTED: u8 = 4;

/// A source file at the time of the last scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Relative to the dataset's root.
    pub path: &'a [u8],
    /// Size, times and inode number.
    pub key: StatKey,
    /// The file changed so shortly before the scan that a later change might
    /// leave the same times. It is hashed again at the next scan.
    pub racy: bool,
    /// Hash of the content; `None` if the file itself is skipped, or not hashed
    /// yet.
    pub content: Option<Hash>,
    /// Why the file itself is skipped, if so.
    pub skipped: Option<&'a SkipReason>,
    /// Whether the dataset consists of this file among others. False if the last
    /// scan was limited to a list of files without it: its rows are kept, and not
    /// served.
    pub selected: bool,
}

impl File<'_> {
    /// Whether the file is used, and was not hashed yet. Such files are not saved.
    pub(crate) fn is_pending(&self) -> bool {
        self.content.is_none() && self.skipped.is_none()
    }
}

/// A table of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    paths: Paths,
    keys: Vec<StatKey>,
    /// Zeros where there is none.
    hashes: Vec<Hash>,
    flags: Vec<u8>,
    /// Few files are skipped.
    skipped: BTreeMap<usize, SkipReason>,
}

impl Files {
    pub(crate) fn with_capacity(count: usize) -> Self {
        Files {
            keys: Vec::with_capacity(count),
            hashes: Vec::with_capacity(count),
            flags: Vec::with_capacity(count),
            ..Files::default()
        }
    }

    /// The files of these columns, sorted by path, and of another table, which holds those that are
    /// skipped. `None` if a rule is broken.
    pub(crate) fn from_columns(
        paths: Paths,
        keys: Vec<StatKey>,
        flags: Vec<u8>,
        contents: impl Iterator<Item = Option<Hash>>,
        rare: &Files,
    ) -> Option<Self> {
        let known = HAS_CONTENT | RACY | UNSELECTED;
        let mut hashes = Vec::with_capacity(flags.len());
        let mut n_skipped = 0;
        for (content, flags) in contents.zip(&flags) {
            if content.is_some() != (flags & HAS_CONTENT != 0) || flags & !known != 0 {
                return None;
            }
            n_skipped += usize::from(content.is_none());
            hashes.push(content.unwrap_or_default());
        }
        let is_plain = |path: &[u8]| check_relative(path).is_ok();
        if !paths.is_sorted() || !paths.iter().all(is_plain) {
            return None;
        }
        let mut files = Files {
            paths,
            keys,
            hashes,
            flags,
            skipped: BTreeMap::new(),
        };
        for file in rare.iter() {
            let at = files.find(file.path)?;
            if file
                != (File {
                    skipped: file.skipped,
                    ..files.get(at)
                })
            {
                return None;
            }
            files.skipped.insert(at, file.skipped?.clone());
        }
        (files.skipped.len() == n_skipped).then_some(files)
    }

    /// What is noted of the file with this number, as [`Files::from_columns`] takes it.
    pub(crate) fn flags(&self, index: usize) -> u8 {
        self.flags[index]
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// The file with this number.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn get(&self, index: usize) -> File<'_> {
        let flags = self.flags[index];
        let has = |flag| flags & flag != 0;
        let skipped = match has(HAS_CONTENT) {
            true => None,
            false => self.skipped.get(&index),
        };
        File {
            path: self.paths.get(index),
            key: self.keys[index],
            racy: has(RACY),
            content: has(HAS_CONTENT).then(|| self.hashes[index]),
            skipped,
            selected: !has(UNSELECTED),
        }
    }

    /// The hash of the content of the file with this number, if it has one.
    pub(crate) fn content(&self, index: usize) -> Option<Hash> {
        (self.flags[index] & HAS_CONTENT != 0).then(|| self.hashes[index])
    }

    /// The files, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = File<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The number of a path, if the files are sorted by path.
    pub(crate) fn find(&self, path: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.paths.get(middle).cmp(path) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    pub(crate) fn last_path(&self) -> Option<&[u8]> {
        self.paths.last()
    }

    pub(crate) fn push(&mut self, file: File) {
        if let Some(reason) = file.skipped {
            self.skipped.insert(self.len(), reason.clone());
        }
        self.paths.push(file.path);
        self.keys.push(file.key);
        self.hashes.push(file.content.unwrap_or_default());
        self.flags.push(flags(file));
    }

    /// Adds files of another table; both are sorted by path. Of a file that both have, the
    /// new entry counts if the old one is pending, or of an earlier state of the file.
    /// Returns whether the table changed; if not, one that is shared stays so.
    pub(crate) fn merge(table: &mut Arc<Files>, others: &Files) -> bool {
        let mut replaced = Vec::new();
        let mut new = Files::default();
        for (number, other) in others.iter().enumerate() {
            match table.find(other.path) {
                Some(at) => {
                    let old = table.get(at);
                    let is_filled = old.is_pending() && !other.is_pending();
                    let is_later = old.key.ctime_ns <= other.key.ctime_ns;
                    if is_filled || is_later && old.key != other.key {
                        replaced.push((at, number));
                    }
                }
                None => new.push(other),
            }
        }
        if replaced.is_empty() && new.is_empty() {
            return false;
        }
        let files = Arc::make_mut(table);
        for (at, number) in replaced {
            files.replace(at, others.get(number));
        }
        files.insert(&new);
        true
    }

    /// Adds files that are not in the table.
    fn insert(&mut self, new: &Files) {
        let mut new = new.iter().peekable();
        let last = self.last_path();
        if new
            .peek()
            .is_none_or(|new| last.is_none_or(|last| new.path > last))
        {
            return new.for_each(|file| self.push(file));
        }
        let mut merged = Files::with_capacity(self.len() + new.len());
        for file in self.iter() {
            while let Some(before) = new.next_if(|other| other.path < file.path) {
                merged.push(before);
            }
            merged.push(file);
        }
        new.for_each(|file| merged.push(file));
        *self = merged;
    }

    /// Replaces all of an entry but whether it is selected.
    fn replace(&mut self, at: usize, new: File) {
        self.keys[at] = new.key;
        self.hashes[at] = new.content.unwrap_or_default();
        self.flags[at] = self.flags[at] & UNSELECTED | flags(new) & !UNSELECTED;
        match new.skipped {
            Some(reason) => self.skipped.insert(at, reason.clone()),
            None => self.skipped.remove(&at),
        };
    }

    /// Whether a file is selected has no meaning everywhere.
    pub(crate) fn select_all(&mut self) {
        self.flags
            .iter_mut()
            .for_each(|flags| *flags &= !UNSELECTED);
    }

    /// Records the hash of a file that is pending. Returns whether there is one; if not, a
    /// table that is shared stays so.
    pub(crate) fn set_hash(table: &mut Arc<Files>, path: &[u8], hash: Hash) -> bool {
        let at = table.find(path).filter(|&at| table.get(at).is_pending());
        if let Some(at) = at {
            let files = Arc::make_mut(table);
            files.hashes[at] = hash;
            files.flags[at] |= HAS_CONTENT;
        }
        at.is_some()
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.paths.shrink_to_fit();
        self.keys.shrink_to_fit();
        self.hashes.shrink_to_fit();
        self.flags.shrink_to_fit();
    }
}

fn flags(file: File) -> u8 {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    flag(file.content.is_some(), HAS_CONTENT)
        | flag(file.racy, RACY)
        | flag(!file.selected, UNSELECTED)
}
