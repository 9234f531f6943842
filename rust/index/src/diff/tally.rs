//! From settled drafts to the lists and counts of a scan.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{Draft, State};
use crate::entry::Fault;
use crate::hash::Hash;
use crate::manifest::{FileEntry, Manifest};
use crate::outcome::{Scan, Todo};

pub(super) fn tally(drafts: Vec<Draft>, manifest: &Manifest, faults: Vec<Fault>) -> Scan {
    let mut tally = Tally {
        manifest,
        scan: Scan::default(),
        files: Vec::with_capacity(drafts.len()),
        added: Vec::new(),
        is_there: vec![false; manifest.files().len()],
        queued: HashSet::new(),
    };
    for draft in drafts {
        tally.draft(draft);
    }
    let mut scan = tally.finish();
    let faults = faults.into_iter().map(|fault| (fault.path, fault.reason));
    scan.faults = faults.collect();
    scan
}

struct Tally<'a> {
    manifest: &'a Manifest,
    scan: Scan,
    files: Vec<FileEntry>,
    /// Positions in `files` of what may turn out to be renamed.
    added: Vec<usize>,
    /// Which of the old table's files still are.
    is_there: Vec<bool>,
    queued: HashSet<Hash>,
}

impl Tally<'_> {
    fn draft(&mut self, draft: Draft) {
        let (entry, is_kept) = match draft.state {
            State::Settled(entry) => (entry, false),
            State::Kept(entry) => (entry, true),
            State::Unhashed(file) => {
                self.stands(file.key.size);
                self.scan.added.push(file.path);
                return;
            }
            State::Suspect(_) | State::Vanished => return,
        };
        self.stands(entry.key.size);
        match draft.known {
            Some(index) => self.known(index, &entry),
            None if entry.content.is_some() => self.added.push(self.files.len()),
            None => {}
        }
        self.content(&entry, is_kept);
        self.files.push(entry);
    }

    fn stands(&mut self, size: u64) {
        self.scan.n_files += 1;
        self.scan.total_bytes = self.scan.total_bytes.saturating_add(size);
    }

    fn known(&mut self, index: usize, entry: &FileEntry) {
        self.is_there[index] = true;
        let old = &self.manifest.files()[index];
        if old.content != entry.content || old.skipped != entry.skipped {
            self.scan.changed.push(entry.path.clone());
            return;
        }
        self.scan.counts.unchanged += 1;
        let is_refreshed = old.key != entry.key || old.racy != entry.racy;
        self.scan.counts.refreshed += u64::from(is_refreshed);
    }

    fn content(&mut self, entry: &FileEntry, is_kept: bool) {
        let mut reason = entry.skipped.as_deref();
        if let Some(hash) = entry.content {
            match self.manifest.content(&hash) {
                Some(content) => reason = content.skipped.as_deref(),
                // What is only kept cannot be read now.
                None if is_kept || !self.queued.insert(hash) => {}
                None => self.scan.todo.push(Todo {
                    path: entry.path.clone(),
                    hash,
                    size: entry.key.size,
                }),
            }
        }
        if let Some(reason) = reason {
            let reason = reason.to_owned();
            self.scan.skipped.push((entry.path.clone(), reason));
        }
    }

    /// Pairs what came with what went, by content.
    fn finish(mut self) -> Scan {
        let old = self.manifest.files();
        let mut gone: HashMap<Hash, VecDeque<usize>> = HashMap::new();
        for (index, file) in old.iter().enumerate() {
            if let (false, Some(hash)) = (self.is_there[index], file.content) {
                gone.entry(hash).or_default().push_back(index);
            }
        }
        for &index in &self.added {
            let file = &self.files[index];
            let from = file
                .content
                .and_then(|hash| gone.get_mut(&hash)?.pop_front());
            match from {
                Some(from) => {
                    self.is_there[from] = true;
                    let pair = (old[from].path.clone(), file.path.clone());
                    self.scan.renamed.push(pair);
                }
                None => self.scan.added.push(file.path.clone()),
            }
        }
        self.scan.added.sort_unstable(); // the unhashed came first
        let gone = old.iter().zip(&self.is_there).filter(|(_, &there)| !there);
        self.scan.removed = gone.map(|(file, _)| file.path.clone()).collect();
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
