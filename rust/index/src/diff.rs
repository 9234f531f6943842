//! Which files' features are not in the cache?

mod same;
mod tally;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::entry::{Fault, Found, Root};
use crate::hash::{reason_by_size, Outcome};
use crate::listed::look_at;
use crate::manifest::{FileEntry, Manifest};
use crate::outcome::Scan;
use crate::pool::{hash_all, Job};
use crate::reason::is_settled;
use crate::stat::RacyFrom;
use crate::walk::walk;
use crate::watch::Watch;
use crate::Result;

/// When a file counts as unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Its stamps are those recorded, and were not too young.
    #[default]
    Stat,
    /// Its bytes have the recorded hash: every file is read.
    Content,
}

/// How to scan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Extensions of audio files: lower case, without the dot.
    pub extensions: Vec<String>,
    /// Folders to leave out.
    pub exclude: Vec<PathBuf>,
    /// Look at these paths, relative to the root, instead of walking.
    pub files: Option<Vec<Vec<u8>>>,
    /// Follow every symbolic link. Otherwise links to files inside the dataset
    /// are followed, and no others.
    pub follow_links: bool,
    /// When a file counts as unchanged.
    pub trust: Trust,
    /// Larger files are skipped.
    pub max_bytes: u64,
    /// At most this many threads walk, and hash.
    pub workers: usize,
    /// Hash files that are not known. Without, they are only listed as added,
    /// renames are not seen, and what is applied leaves them out.
    pub hash_added: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            extensions: Vec::new(),
            exclude: Vec::new(),
            files: None,
            follow_links: false,
            trust: Trust::Stat,
            max_bytes: 64 << 30,
            workers: 1,
            hash_added: true,
        }
    }
}

/// A file of the new table in the making.
struct Draft {
    /// Its position in the old table.
    known: Option<usize>,
    state: State,
}

enum State {
    /// Nothing more to find out.
    Settled(FileEntry),
    /// Not looked at, for a fault: as it was.
    Kept(FileEntry),
    /// To be hashed; replaced by the outcome.
    Suspect(Found),
    /// New, and not to be hashed.
    Unhashed(Found),
    /// Gone since the walk.
    Vanished,
}

/// Compares the folder `root` with `manifest`.
///
/// Opens only files that are new or whose stamps changed or were too young.
pub fn scan(
    manifest: &Manifest,
    root: &Path,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Scan> {
    let root = Root::open(root, options.follow_links)?;
    // Before anything is looked at: what is written later is younger.
    let racy_from = RacyFrom::now();
    let (found, faults) = match &options.files {
        Some(files) => look_at(&root, files, watch)?,
        None => walk(
            &root,
            &options.extensions,
            &options.exclude,
            options.workers,
            watch,
        )?,
    };
    let judge = Judge { options, racy_from };
    if faults.is_empty() {
        if let Some(scan) = same::scan_of_nothing_new(&judge, &found, manifest) {
            return Ok(scan);
        }
    }
    let mut drafts = judge.compare(found, manifest.files(), &faults);
    judge.hash(&root, &mut drafts, watch)?;
    Ok(tally::tally(drafts, manifest, faults))
}

struct Judge<'a> {
    options: &'a Options,
    racy_from: RacyFrom,
}

impl Judge<'_> {
    /// Merges two lists that are sorted by path. Known files that were not
    /// found get a draft only if a fault may hide them.
    fn compare(&self, found: Vec<Found>, known: &[FileEntry], faults: &[Fault]) -> Vec<Draft> {
        let hidden = Hidden::new(faults);
        let mut drafts = Vec::with_capacity(found.len());
        let mut next = 0;
        let mut keep_before = |drafts: &mut Vec<Draft>, limit: Option<&[u8]>| {
            while let Some(entry) = known.get(next) {
                if limit.is_some_and(|path| &*entry.path >= path) {
                    break;
                }
                if hidden.hides(&entry.path) {
                    drafts.push(Draft {
                        known: Some(next),
                        state: State::Kept(entry.clone()),
                    });
                }
                next += 1;
            }
            // The entry at `limit` itself, if there is one.
            let entry = known.get(next).filter(|e| Some(&*e.path) == limit)?;
            next += 1;
            Some((next - 1, entry))
        };
        for file in found {
            let known = keep_before(&mut drafts, Some(&file.path));
            drafts.push(Draft {
                known: known.map(|(index, _)| index),
                state: self.judge(file, known.map(|(_, entry)| entry)),
            });
        }
        keep_before(&mut drafts, None);
        drafts
    }

    fn judge(&self, file: Found, known: Option<&FileEntry>) -> State {
        let by_size = reason_by_size(file.key.size, self.options.max_bytes);
        if let Some(reason) = file.odd.or(by_size) {
            return State::Settled(self.skipped(file, reason.to_owned()));
        }
        match known {
            Some(entry) if self.is_unchanged(&file, entry) => State::Settled(FileEntry {
                path: file.path,
                skipped: entry.skipped.clone(),
                ..*entry
            }),
            None if !self.options.hash_added => State::Unhashed(file),
            _ => State::Suspect(file),
        }
    }

    fn is_unchanged(&self, file: &Found, known: &FileEntry) -> bool {
        let is_settled = known.skipped.as_deref().is_none_or(is_settled);
        self.options.trust == Trust::Stat
            && is_settled
            && known.key == file.key
            && !known.racy
            // The clock may have been set back since.
            && !file.key.is_racy(self.racy_from)
    }

    fn skipped(&self, file: Found, reason: String) -> FileEntry {
        FileEntry {
            racy: file.key.is_racy(self.racy_from),
            path: file.path,
            key: file.key,
            content: None,
            skipped: Some(reason),
        }
    }

    /// Settles the suspects.
    fn hash(&self, root: &Root, drafts: &mut [Draft], watch: &dyn Watch) -> Result<()> {
        let mut suspects = Vec::new();
        let mut jobs = Vec::new();
        for (index, draft) in drafts.iter().enumerate() {
            if let State::Suspect(file) = &draft.state {
                suspects.push(index);
                jobs.push(Job {
                    path: file.path.clone(),
                    linked: file.linked,
                    size: file.key.size,
                });
            }
        }
        let Options {
            max_bytes, workers, ..
        } = *self.options;
        let outcomes = hash_all(root, max_bytes, &jobs, workers, watch)?;
        for (index, outcome) in suspects.into_iter().zip(outcomes) {
            let state = std::mem::replace(&mut drafts[index].state, State::Vanished);
            if let State::Suspect(file) = state {
                drafts[index].state = self.settle(file, outcome);
            }
        }
        Ok(())
    }

    fn settle(&self, mut file: Found, outcome: Outcome) -> State {
        match outcome {
            Outcome::Hashed(key, hash) => State::Settled(FileEntry {
                racy: key.is_racy(self.racy_from),
                path: file.path,
                key,
                content: Some(hash),
                skipped: None,
            }),
            Outcome::Skipped(key, reason) => {
                file.key = key.unwrap_or(file.key);
                State::Settled(self.skipped(file, reason))
            }
            Outcome::Vanished | Outcome::Stopped => State::Vanished,
        }
    }
}

/// The paths that faults hide.
struct Hidden<'a>(HashSet<&'a [u8]>);

impl<'a> Hidden<'a> {
    fn new(faults: &'a [Fault]) -> Self {
        let hiding = faults.iter().filter(|fault| fault.hides);
        Hidden(hiding.map(|fault| &*fault.path).collect())
    }

    /// Whether the path or a folder above it is hidden.
    fn hides(&self, path: &[u8]) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let slashes = path.iter().enumerate().filter(|(_, &byte)| byte == b'/');
        let mut folders = slashes.map(|(at, _)| &path[..at]);
        self.0.contains(path) || folders.any(|folder| self.0.contains(folder))
    }
}
