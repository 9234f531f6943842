//! Deciding for each file whether it is unchanged, and hashing those that may
//! have changed.

use std::collections::{HashMap, HashSet};

use super::options::{Hashing, Options, Trust};
use crate::files::{File, Files};
use crate::found::{Found, FoundFiles};
use crate::hash::Hash;
use crate::hash_files::hash_all;
use crate::hasher::Outcome;
use crate::progress::Progress;
use crate::root::Root;
use crate::skip_reason::{self, SkipReason};
use crate::stat::RacyFrom;
use crate::tree::Fault;
use crate::Result;

/// No file.
const NONE: u32 = u32::MAX;

/// A file of the new table, not final yet: 16 bytes, because there may be millions.
#[derive(Clone, Copy)]
pub(super) struct Draft {
    /// Number of the file among those found, and in the old table.
    found: u32,
    known: u32,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// It is unchanged: its entry is that of the old table, or of the table of files that
    /// are known from elsewhere, where it has this number.
    Same,
    SameElsewhere(u32),
    /// It could not be examined because of a fault: its old entry.
    Kept,
    /// It must be hashed.
    Suspect,
    /// It was hashed. The number of its hash.
    Hashed(u32),
    /// It is skipped. The number of the reason.
    Skipped(u32),
    /// It is known, and the scan was limited to a list of files without it.
    Unlisted,
    /// It is new, and new files are not to be hashed.
    Unhashed,
    /// It is hashed by whoever reads it, because no other file has its size.
    Pending,
    /// It disappeared after it was found.
    Vanished,
}

/// The files of the new table, not final yet.
pub(super) struct Drafts {
    found: FoundFiles,
    list: Vec<Draft>,
    hashes: Vec<Hash>,
    reasons: Vec<SkipReason>,
}

/// What a draft has become.
pub(super) enum Outcomes<'a> {
    /// An entry of the new table; `kept`: the file could not be examined.
    Entry { file: File<'a>, kept: bool },
    /// The entry of a file that was not to be examined.
    Unlisted(File<'a>),
    /// A new file that is not in the new table.
    Unhashed(Found<'a>),
    /// There is no file.
    Gone,
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
    pub(super) fn drafts(&self, found: FoundFiles, known: &Files, faults: &[Fault]) -> Drafts {
        let hidden = Hidden::new(faults);
        let listed = self.listed();
        let mut drafts = Drafts {
            list: Vec::with_capacity(found.len()),
            hashes: Vec::new(),
            reasons: Vec::new(),
            found,
        };
        let mut next = 0;
        for index in 0..=drafts.found.len() {
            let is_found = index < drafts.found.len();
            let file = is_found.then(|| drafts.found.get(index));
            while next < known.len() {
                let entry = known.get(next);
                if file.is_some_and(|file| entry.path >= file.path) {
                    break;
                }
                let is_listed = listed.as_ref().is_none_or(|set| set.contains(entry.path));
                let state = match is_listed {
                    false => Some(State::Unlisted),
                    true => hidden.hides(entry.path).then_some(State::Kept),
                };
                drafts.list.extend(state.map(|state| Draft {
                    found: NONE,
                    known: next as u32,
                    state,
                }));
                next += 1;
            }
            let Some(file) = file else {
                break;
            };
            let is_known = next < known.len() && known.get(next).path == file.path;
            let entry = is_known.then(|| known.get(next));
            let state = match self.unusable(&file) {
                Some(reason) => {
                    drafts.reasons.push(reason.clone());
                    State::Skipped(drafts.reasons.len() as u32 - 1)
                }
                None => self.state(file, entry),
            };
            drafts.list.push(Draft {
                found: index as u32,
                known: if is_known { next as u32 } else { NONE },
                state,
            });
            next += usize::from(is_known);
        }
        drafts
    }

    fn listed(&self) -> Option<HashSet<&[u8]>> {
        let files = self.options.files.as_ref()?;
        Some(files.iter().map(Vec::as_slice).collect())
    }

    fn state(&self, file: Found, known: Option<File>) -> State {
        if known.is_some_and(|entry| self.is_unchanged(&file, &entry)) {
            return State::Same;
        }
        let elsewhere = self.options.known.files();
        let there = elsewhere.find(file.path);
        match there.filter(|&at| self.is_unchanged(&file, &elsewhere.get(at))) {
            Some(at) => State::SameElsewhere(at as u32),
            None if known.is_none() && !self.options.hash_added => State::Unhashed,
            None => State::Suspect,
        }
    }

    /// Why the file is skipped without being opened, if so.
    pub(super) fn unusable(&self, file: &Found) -> Option<&'static SkipReason> {
        let by_size = || skip_reason::by_size(file.key.size, self.options.max_bytes);
        file.unusable.or_else(by_size)
    }

    pub(super) fn is_unchanged(&self, file: &Found, known: &File) -> bool {
        self.options.trust == Trust::Stat
            // A file without a content is examined again at each scan.
            && known.content.is_some()
            && known.key == file.key
            && !known.racy
            // The clock may have been set back since.
            && !file.key.is_racy(self.racy_from)
    }

    /// Makes the suspects pending that are not to be hashed.
    pub(super) fn defer(&self, drafts: &mut Drafts, known: &Files) {
        let hashing = self.options.hashing;
        if hashing == Hashing::All {
            return;
        }
        let Drafts { found, list, .. } = drafts;
        let size = |draft: &Draft| match draft.state {
            State::Suspect => Some(found.get(draft.found as usize).key.size),
            _ => None,
        };
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for size in list.iter().filter_map(size) {
            *counts.entry(size).or_default() += 1;
        }
        for file in known.iter().chain(self.options.known.files().iter()) {
            if let Some(count) = counts.get_mut(&file.key.size) {
                *count += 1;
            }
        }
        let elsewhere = self.options.known.files();
        for draft in list {
            let Some(size) = size(draft) else {
                continue;
            };
            // One that is known, and may have changed within a tick of the clock.
            let file = found.get(draft.found as usize);
            let is_racy = || {
                let there = elsewhere.find(file.path).map(|at| elsewhere.get(at));
                let entry = draft.known().map(|at| known.get(at)).or(there);
                entry.is_some_and(|entry| entry.key == file.key && entry.content.is_some())
            };
            let is_deferred = match hashing {
                Hashing::None => !is_racy(),
                _ => counts[&size] == 1,
            };
            if is_deferred {
                draft.state = State::Pending;
            }
        }
    }

    /// Hashes the suspects and replaces their states.
    pub(super) fn hash_suspects(
        &self,
        root: &Root,
        drafts: &mut Drafts,
        progress: &dyn Progress,
    ) -> Result<()> {
        let is_suspect = |draft: &Draft| matches!(draft.state, State::Suspect);
        let numbers = (0..).zip(&drafts.list);
        let suspects = numbers.filter(|(_, draft)| is_suspect(draft));
        let suspects: Vec<u32> = suspects.map(|(number, _)| number).collect();
        let jobs = suspects.iter();
        let jobs: Vec<u32> = jobs.map(|&n| drafts.list[n as usize].found).collect();
        let mut new_keys = Vec::new();
        let Drafts {
            found,
            list,
            hashes,
            reasons,
        } = drafts;
        hash_all(
            root,
            found,
            &jobs,
            self.options.max_bytes,
            self.options.workers,
            progress,
            |index, outcome| {
                let (state, key) = match outcome {
                    Outcome::Hashed(key, hash) => {
                        hashes.push(hash);
                        (State::Hashed(hashes.len() as u32 - 1), Some(key))
                    }
                    Outcome::Skipped(key, reason) => {
                        reasons.push(reason);
                        (State::Skipped(reasons.len() as u32 - 1), key)
                    }
                    // A scan in which a file is away, or that was stopped, has no result.
                    Outcome::Vanished | Outcome::Away(_) | Outcome::Stopped => {
                        (State::Vanished, None)
                    }
                };
                let job = jobs[index] as usize;
                list[suspects[index] as usize].state = state;
                if let Some(key) = key.filter(|key| *key != found.get(job).key) {
                    new_keys.push((job, key));
                }
            },
        )?;
        for (job, key) in new_keys {
            found.set_key(job, key);
        }
        Ok(())
    }

    /// What has become of a draft.
    pub(super) fn outcome<'a>(
        &'a self,
        drafts: &'a Drafts,
        draft: Draft,
        old: &'a Files,
    ) -> Outcomes<'a> {
        let new = |content, skipped| {
            let Found { path, key, .. } = drafts.found.get(draft.found as usize);
            Outcomes::Entry {
                file: File {
                    path,
                    key,
                    racy: key.is_racy(self.racy_from),
                    content,
                    skipped,
                    selected: true,
                },
                kept: false,
            }
        };
        let entry = |table: &'a Files, number: u32, kept| Outcomes::Entry {
            file: File {
                selected: true,
                ..table.get(number as usize)
            },
            kept,
        };
        match draft.state {
            State::Same => entry(old, draft.known, false),
            State::SameElsewhere(at) => entry(self.options.known.files(), at, false),
            State::Kept => entry(old, draft.known, true),
            State::Hashed(at) => new(Some(drafts.hashes[at as usize]), None),
            State::Skipped(at) => new(None, Some(&drafts.reasons[at as usize])),
            State::Pending => new(None, None),
            State::Unlisted => Outcomes::Unlisted(File {
                selected: false,
                ..old.get(draft.known as usize)
            }),
            State::Unhashed => Outcomes::Unhashed(drafts.found.get(draft.found as usize)),
            State::Suspect | State::Vanished => Outcomes::Gone,
        }
    }
}

impl Drafts {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Draft> + '_ {
        self.list.iter().copied()
    }
}

impl Draft {
    /// Number of the file in the old table.
    pub(super) fn known(self) -> Option<usize> {
        (self.known != NONE).then_some(self.known as usize)
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
