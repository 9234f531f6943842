//! Deciding for each file whether it is unchanged, and hashing those that may
//! have changed.

use std::collections::{HashMap, HashSet};

use super::options::{Hashing, Options, Trust};
use crate::hash_files::{hash_all, Job};
use crate::hasher::Outcome;
use crate::progress::Progress;
use crate::records::FileEntry;
use crate::root::Root;
use crate::skip_reason::{self, SkipReason};
use crate::stat::RacyFrom;
use crate::tree::{Fault, Found};
use crate::Result;

/// A file of the new table, not final yet.
pub(super) struct Draft {
    /// Index of the file in the old table.
    pub(super) known: Option<usize>,
    pub(super) state: State,
}

pub(super) enum State {
    /// Its entry is final.
    Settled(FileEntry),
    /// It could not be examined because of a fault: its old entry.
    Kept(FileEntry),
    /// It must be hashed.
    Suspect(Found),
    /// It is known, and the scan was limited to a list of files without it.
    Unlisted(FileEntry),
    /// It is new, and new files are not to be hashed.
    Unhashed(Found),
    /// It is hashed by whoever reads it, because no other file has its size.
    Pending(FileEntry),
    /// It disappeared after it was found.
    Vanished,
}

/// What a file's state depends on, besides the file and its old entry.
pub(super) struct Comparison<'a> {
    pub(super) options: &'a Options,
    pub(super) racy_from: RacyFrom,
}

impl Comparison<'_> {
    /// Merges the files found with those known; both lists are sorted by path.
    /// A known file that was not found has a draft only if a fault may hide it, or
    /// if it was not looked for.
    pub(super) fn drafts(
        &self,
        found: Vec<Found>,
        known: &[FileEntry],
        faults: &[Fault],
    ) -> Vec<Draft> {
        let hidden = Hidden::new(faults);
        let listed = self.listed();
        let mut drafts = Vec::with_capacity(found.len());
        let mut next = 0;
        let mut keep_before = |drafts: &mut Vec<Draft>, limit: Option<&[u8]>| {
            while let Some(entry) = known.get(next) {
                if limit.is_some_and(|path| &*entry.path >= path) {
                    break;
                }
                let is_listed = listed.as_ref().is_none_or(|set| set.contains(&*entry.path));
                let state = match is_listed {
                    false => Some(State::Unlisted(entry.clone())),
                    true if hidden.hides(&entry.path) => Some(State::Kept(entry.clone())),
                    true => None,
                };
                drafts.extend(state.map(|state| Draft {
                    known: Some(next),
                    state,
                }));
                next += 1;
            }
            // The entry with the path `limit`, if there is one.
            let entry = known.get(next).filter(|e| Some(&*e.path) == limit)?;
            next += 1;
            Some((next - 1, entry))
        };
        for file in found {
            let known = keep_before(&mut drafts, Some(&file.path));
            drafts.push(Draft {
                known: known.map(|(index, _)| index),
                state: self.state(file, known.map(|(_, entry)| entry)),
            });
        }
        keep_before(&mut drafts, None);
        drafts
    }

    fn listed(&self) -> Option<HashSet<&[u8]>> {
        let files = self.options.files.as_ref()?;
        Some(files.iter().map(Vec::as_slice).collect())
    }

    fn state(&self, file: Found, known: Option<&FileEntry>) -> State {
        if let Some(reason) = self.unusable(&file) {
            return State::Settled(self.skipped(file, reason.clone()));
        }
        let elsewhere = || self.options.known.find(&file.path);
        let unchanged = |entry: &&FileEntry| self.is_unchanged(&file, entry);
        let entry = known
            .filter(unchanged)
            .or_else(|| elsewhere().filter(unchanged));
        match entry {
            Some(entry) => State::Settled(FileEntry {
                path: file.path,
                skipped: entry.skipped.clone(),
                selected: true,
                ..*entry
            }),
            None if known.is_none() && !self.options.hash_added => State::Unhashed(file),
            None => State::Suspect(file),
        }
    }

    /// Why the file is skipped without being opened, if so.
    pub(super) fn unusable(&self, file: &Found) -> Option<&'static SkipReason> {
        let by_size = || skip_reason::by_size(file.key.size, self.options.max_bytes);
        file.unusable.or_else(by_size)
    }

    pub(super) fn is_unchanged(&self, file: &Found, known: &FileEntry) -> bool {
        self.options.trust == Trust::Stat
            // A file without a content is examined again at each scan.
            && known.skipped.is_none()
            && !known.is_pending()
            && known.key == file.key
            && !known.racy
            // The clock may have been set back since.
            && !file.key.is_racy(self.racy_from)
    }

    fn skipped(&self, file: Found, reason: SkipReason) -> FileEntry {
        FileEntry {
            racy: file.key.is_racy(self.racy_from),
            path: file.path,
            key: file.key,
            content: None,
            skipped: Some(reason),
            selected: true,
        }
    }

    /// Makes the suspects pending that are not to be hashed.
    pub(super) fn defer(&self, drafts: &mut [Draft], known: &[FileEntry]) {
        let hashing = self.options.hashing;
        if hashing == Hashing::All {
            return;
        }
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for draft in drafts.iter() {
            if let State::Suspect(file) = &draft.state {
                *counts.entry(file.key.size).or_default() += 1;
            }
        }
        for file in known.iter().chain(self.options.known.files()) {
            if let Some(count) = counts.get_mut(&file.key.size) {
                *count += 1;
            }
        }
        for draft in drafts {
            let state = std::mem::replace(&mut draft.state, State::Vanished);
            // One that is known, and may have changed within a tick of the clock.
            let is_racy = |file: &Found| {
                let known = draft.known.map(|index| &known[index]);
                let entry = known.or_else(|| self.options.known.find(&file.path));
                entry.is_some_and(|entry| entry.key == file.key && entry.content.is_some())
            };
            let is_deferred = |file: &Found| match hashing {
                Hashing::None => !is_racy(file),
                _ => counts[&file.key.size] == 1,
            };
            draft.state = match state {
                State::Suspect(file) if is_deferred(&file) => State::Pending(FileEntry {
                    racy: file.key.is_racy(self.racy_from),
                    path: file.path,
                    key: file.key,
                    content: None,
                    skipped: None,
                    selected: true,
                }),
                state => state,
            };
        }
    }

    /// Hashes the suspects and replaces their states.
    pub(super) fn hash_suspects(
        &self,
        root: &Root,
        drafts: &mut [Draft],
        progress: &dyn Progress,
    ) -> Result<()> {
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
        let outcomes = hash_all(root, max_bytes, &jobs, workers, progress)?;
        for (index, outcome) in suspects.into_iter().zip(outcomes) {
            let state = std::mem::replace(&mut drafts[index].state, State::Vanished);
            if let State::Suspect(file) = state {
                drafts[index].state = self.after_hashing(file, outcome);
            }
        }
        Ok(())
    }

    fn after_hashing(&self, mut file: Found, outcome: Outcome) -> State {
        match outcome {
            Outcome::Hashed(key, hash) => State::Settled(FileEntry {
                racy: key.is_racy(self.racy_from),
                path: file.path,
                key,
                content: Some(hash),
                skipped: None,
                selected: true,
            }),
            Outcome::Skipped(key, reason) => {
                file.key = key.unwrap_or(file.key);
                State::Settled(self.skipped(file, reason))
            }
            // A scan in which a file is away, or that was stopped, has no result.
            Outcome::Vanished | Outcome::Away(_) | Outcome::Stopped => State::Vanished,
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
