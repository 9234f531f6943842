//! The files that a walk, or the look-up of a list of files, finds.

use std::collections::BTreeMap;

use rustix::io::Errno;

use crate::away::is_away;
use crate::found::{Found, FoundFiles, FoundList};
use crate::path::under;
use crate::root::Root;
use crate::skip_reason::{self, SkipReason};
use crate::stat::StatKey;
use crate::{Error, Result};

/// A path that could not be examined.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) path: Box<[u8]>,
    pub(crate) reason: SkipReason,
    /// Known files at and below the path may still exist.
    pub(crate) hides: bool,
}

/// What a walk, or the look-up of a list of files, found. Lists are sorted by
/// path.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) found: FoundFiles,
    pub(crate) faults: Vec<Fault>,
    /// Folders that distill wrote, and that were not walked.
    pub(crate) left_out: Vec<Box<[u8]>>,
    /// Number of files of each kind that is not read, sorted.
    pub(crate) unread: Vec<(String, u64)>,
}

/// A listing that is being made.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Number of files found, also in folders that were then left out.
    pub(crate) files: u64,
    found: FoundList,
    /// What other threads found.
    others: Vec<FoundList>,
    pub(crate) faults: Vec<Fault>,
    left_out: Vec<Box<[u8]>>,
    /// Number of files of each kind that is not read, by its index in the options:
    /// in all folders, and in the folder that is being read.
    unread: BTreeMap<usize, u64>,
    unread_here: BTreeMap<usize, u64>,
    /// The first path that cannot be had at the moment, and why. What else was
    /// found must then not be used: files may seem to be removed.
    away: Option<(Box<[u8]>, Errno)>,
}

impl Tree {
    pub(crate) fn file(&mut self, path: &[u8], key: StatKey, linked: bool) {
        self.push(Found {
            path,
            key,
            linked,
            unusable: None,
        });
    }

    pub(crate) fn unusable(&mut self, path: &[u8], key: StatKey, reason: &'static SkipReason) {
        self.push(Found {
            path,
            key,
            linked: false,
            unusable: Some(reason),
        });
    }

    fn push(&mut self, file: Found) {
        self.files += 1;
        self.found.push(file);
    }

    /// Counts a file of a kind that is not read.
    pub(crate) fn count_unread(&mut self, kind: usize) {
        *self.unread_here.entry(kind).or_default() += 1;
    }

    /// Whether a path cannot be had at the moment, so that going on is useless.
    pub(crate) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Records that `path` could not be examined, unless it was just removed.
    pub(crate) fn fault(&mut self, path: Box<[u8]>, errno: Errno) {
        if is_away(errno) {
            self.away.get_or_insert((path, errno));
        } else if errno != Errno::NOENT {
            self.faults.push(Fault {
                path,
                reason: skip_reason::unreadable(&errno.into()),
                hides: true,
            });
        }
    }

    /// Ends the folder that is being read.
    pub(crate) fn end_folder(&mut self) {
        let here = std::mem::take(&mut self.unread_here);
        self.add_unread(here);
        self.found.end_folder();
    }

    /// Forgets the files of the folder that is being read, and all but the first
    /// `faults` faults: the folder is one that distill wrote.
    pub(crate) fn abandon_folder(&mut self, path: &[u8], faults: usize) {
        self.found.abandon_folder();
        self.unread_here.clear();
        self.faults.truncate(faults);
        self.leave_out(path.into());
    }

    pub(crate) fn leave_out(&mut self, folder: Box<[u8]>) {
        self.left_out.push(folder);
    }

    fn add_unread(&mut self, counts: BTreeMap<usize, u64>) {
        for (kind, count) in counts {
            *self.unread.entry(kind).or_default() += count;
        }
    }

    pub(crate) fn add(&mut self, mut other: Tree) {
        other.found.end_folder();
        self.add_unread(other.unread);
        self.add_unread(other.unread_here);
        self.files += other.files;
        self.others.extend(other.others);
        self.others.push(other.found);
        self.faults.extend(other.faults);
        self.left_out.extend(other.left_out);
        self.away = self.away.take().or(other.away);
    }

    /// All that was found, sorted by path. `kinds` are the names of those that are
    /// not read.
    ///
    /// # Errors
    ///
    /// If a path cannot be had at the moment.
    pub(crate) fn sorted(mut self, root: &Root, kinds: &[String]) -> Result<Listing> {
        if let Some((path, errno)) = self.away {
            return Err(Error::io(under(&root.path, &path), errno));
        }
        self.end_folder();
        self.others.push(self.found);
        let found = FoundFiles::sorted(self.others);
        self.faults.sort_by(|a, b| a.path.cmp(&b.path));
        self.left_out.sort_unstable();
        let counts = self.unread.into_iter();
        let mut unread: Vec<_> = counts.map(|(kind, n)| (kinds[kind].clone(), n)).collect();
        unread.sort_unstable();
        Ok(Listing {
            found,
            faults: self.faults,
            left_out: self.left_out,
            unread,
        })
    }
}
