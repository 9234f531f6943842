//! Making the lists and counts of a scan from the drafts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::compare::{Draft, State};
use crate::hash::Hash;
use crate::manifest::Manifest;
use crate::records::FileEntry;
use crate::scan_result::{Scan, Todo};
use crate::tree::Fault;

/// The result of a scan in which no draft is a suspect any more.
pub(super) fn collect(drafts: Vec<Draft>, manifest: &Manifest, faults: Vec<Fault>) -> Scan {
    let mut collector = Collector {
        manifest,
        scan: Scan::default(),
        files: Vec::with_capacity(drafts.len()),
        new: Vec::new(),
        still_exists: vec![false; manifest.files().len()],
        queued: HashSet::new(),
    };
    for draft in drafts {
        collector.add(draft);
    }
    let mut scan = collector.finish();
    let faults = faults.into_iter().map(|fault| (fault.path, fault.reason));
    scan.faults = faults.collect();
    scan
}

struct Collector<'a> {
    manifest: &'a Manifest,
    scan: Scan,
    files: Vec<FileEntry>,
    /// Indices in `files` of new files that are used: added or renamed.
    new: Vec<usize>,
    /// Whether each file of the old table still exists, under this or, at the
    /// end, under another path.
    still_exists: Vec<bool>,
    /// The contents of `scan.todo`.
    queued: HashSet<Hash>,
}

impl Collector<'_> {
    fn add(&mut self, draft: Draft) {
        let (entry, is_kept) = match draft.state {
            State::Settled(entry) | State::Pending(entry) => (entry, false),
            State::Kept(entry) => (
                FileEntry {
                    selected: true,
                    ..entry
                },
                true,
            ),
            State::Unlisted(entry) => {
                if let Some(index) = draft.known {
                    self.still_exists[index] = true;
                }
                self.files.push(FileEntry {
                    selected: false,
                    ..entry
                });
                return;
            }
            State::Unhashed(file) => {
                self.add_size(file.key.size);
                self.scan.added.push(file.path);
                return;
            }
            State::Suspect(_) | State::Vanished => return,
        };
        self.add_size(entry.key.size);
        match draft.known {
            Some(index) => self.add_known(index, &entry),
            None if entry.skipped.is_none() => self.new.push(self.files.len()),
            None => {}
        }
        self.add_content(&entry, is_kept);
        self.files.push(entry);
    }

    fn add_size(&mut self, size: u64) {
        self.scan.n_files += 1;
        self.scan.total_bytes = self.scan.total_bytes.saturating_add(size);
    }

    fn add_known(&mut self, index: usize, entry: &FileEntry) {
        self.still_exists[index] = true;
        let old = &self.manifest.files()[index];
        if old.content != entry.content || old.skipped != entry.skipped {
            self.scan.changed.push(entry.path.clone());
            return;
        }
        self.scan.counts.unchanged += 1;
        let is_refreshed = old.key != entry.key || old.racy != entry.racy;
        self.scan.counts.refreshed += u64::from(is_refreshed);
    }

    fn add_content(&mut self, entry: &FileEntry, is_kept: bool) {
        let mut reason = entry.skipped.as_ref();
        if entry.is_pending() {
            self.push_todo(entry, None);
        } else if let Some(hash) = entry.content {
            match self.manifest.content(&hash) {
                Some(content) => reason = content.skipped.as_ref(),
                // A kept file cannot be read now, so there is nothing to do.
                None if is_kept || !self.queued.insert(hash) => {}
                None => self.push_todo(entry, Some(hash)),
            }
        }
        if let Some(reason) = reason {
            let reason = reason.clone();
            self.scan.skipped.push((entry.path.clone(), reason));
        }
    }

    fn push_todo(&mut self, entry: &FileEntry, hash: Option<Hash>) {
        self.scan.todo.push(Todo {
            path: entry.path.clone(),
            hash,
            size: entry.key.size,
        });
    }

    /// Pairs new files with removed files of the same content: these are
    /// renamed.
    fn finish(mut self) -> Scan {
        let old = self.manifest.files();
        let mut gone: HashMap<Hash, VecDeque<usize>> = HashMap::new();
        for (index, file) in old.iter().enumerate() {
            if let (false, Some(hash)) = (self.still_exists[index], file.content) {
                gone.entry(hash).or_default().push_back(index);
            }
        }
        for &index in &self.new {
            let file = &self.files[index];
            let from = file
                .content
                .and_then(|hash| gone.get_mut(&hash)?.pop_front());
            match from {
                Some(from) => {
                    self.still_exists[from] = true;
                    let pair = (old[from].path.clone(), file.path.clone());
                    self.scan.renamed.push(pair);
                }
                None => self.scan.added.push(file.path.clone()),
            }
        }
        self.scan.added.sort_unstable(); // files that were not hashed came first
        let files = old.iter().zip(&self.still_exists);
        let removed = files.filter(|(_, &exists)| !exists);
        self.scan.removed = removed.map(|(file, _)| file.path.clone()).collect();
        let counts = &mut self.scan.counts;
        counts.added = self.scan.added.len() as u64;
        counts.changed = self.scan.changed.len() as u64;
        counts.renamed = self.scan.renamed.len() as u64;
        counts.removed = self.scan.removed.len() as u64;
        counts.skipped = self.scan.skipped.len() as u64;
        self.scan.files = Arc::new(self.files);
        self.scan
    }
}
