//! Making the lists and counts of a scan from the drafts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::compare::{Comparison, Drafts, Outcomes};
use crate::files::{File, Files};
use crate::hash::Hash;
use crate::manifest::Manifest;
use crate::paths::Paths;
use crate::scan_result::Scan;
use crate::tree::Fault;

/// The result of a scan in which no draft is a suspect any more.
pub(super) fn collect(
    comparison: &Comparison,
    drafts: Drafts,
    manifest: &Manifest,
    faults: Vec<Fault>,
) -> Scan {
    let mut collector = Collector {
        manifest,
        scan: Scan::default(),
        files: Files::with_capacity(drafts.iter().len()),
        new: Vec::new(),
        still_exists: vec![false; manifest.files().len()],
    };
    for draft in drafts.iter() {
        let outcome = comparison.outcome(&drafts, draft, manifest.files());
        collector.add(draft.known(), outcome);
    }
    drop(drafts);
    let mut scan = collector.finish();
    let faults = faults.into_iter().map(|fault| (fault.path, fault.reason));
    scan.faults = faults.collect();
    scan
}

struct Collector<'a> {
    manifest: &'a Manifest,
    scan: Scan,
    files: Files,
    /// Indices in `files` of new files that are used: added or renamed.
    new: Vec<u32>,
    /// Whether each file of the old table still exists, under this or, at the
    /// end, under another path.
    still_exists: Vec<bool>,
}

impl Collector<'_> {
    fn add(&mut self, known: Option<usize>, outcome: Outcomes) {
        let (file, is_kept) = match outcome {
            Outcomes::Entry { file, kept } => (file, kept),
            Outcomes::Unlisted(file) => {
                if let Some(index) = known {
                    self.still_exists[index] = true;
                }
                return self.files.push(file);
            }
            Outcomes::Unhashed(file) => {
                self.add_size(file.key.size);
                return self.scan.added.push(file.path);
            }
            Outcomes::Gone => return,
        };
        self.add_size(file.key.size);
        match known {
            Some(index) => self.add_known(index, &file),
            None if file.skipped.is_none() => self.new.push(self.files.len() as u32),
            None => {}
        }
        self.add_content(&file, is_kept);
        self.files.push(file);
    }

    fn add_size(&mut self, size: u64) {
        self.scan.n_files += 1;
        self.scan.total_bytes = self.scan.total_bytes.saturating_add(size);
    }

    fn add_known(&mut self, index: usize, file: &File) {
        self.still_exists[index] = true;
        let old = self.manifest.files().get(index);
        if old.content != file.content || old.skipped != file.skipped {
            self.scan.changed.push(file.path);
            return;
        }
        self.scan.counts.unchanged += 1;
        let is_refreshed = old.key != file.key || old.racy != file.racy;
        self.scan.counts.refreshed += u64::from(is_refreshed);
    }

    fn add_content(&mut self, file: &File, is_kept: bool) {
        let mut reason = file.skipped.cloned();
        let number = self.files.len() as u32;
        if file.is_pending() {
            self.scan.todo.push(number);
        } else if let Some(hash) = file.content {
            match self.manifest.content(&hash) {
                Some(content) => reason = content.skipped.clone(),
                // A kept file cannot be read now, so there is nothing to do.
                None if is_kept => {}
                None => self.scan.todo.push(number),
            }
        }
        if let Some(reason) = reason {
            self.scan.skipped.push((file.path.into(), reason));
        }
    }

    /// Keeps the first file of each content to do. Sorted, which takes less memory than a
    /// set of hashes.
    fn first_of_each_content(&mut self) {
        let files = &self.files;
        let content = |number: u32| files.get(number as usize).content;
        let todo = &mut self.scan.todo;
        todo.sort_unstable_by_key(|&number| (content(number), number));
        todo.dedup_by(|b, a| content(*a).is_some() && content(*a) == content(*b));
        todo.sort_unstable();
    }

    /// Pairs new files with removed files of the same content: these are
    /// renamed.
    fn finish(mut self) -> Scan {
        self.first_of_each_content();
        let old = self.manifest.files();
        let mut gone: HashMap<Hash, VecDeque<usize>> = HashMap::new();
        for (index, file) in old.iter().enumerate() {
            if let (false, Some(hash)) = (self.still_exists[index], file.content) {
                gone.entry(hash).or_default().push_back(index);
            }
        }
        // Files that were not hashed.
        let unhashed = std::mem::take(&mut self.scan.added);
        let mut added = Vec::new();
        for &index in &self.new {
            let file = self.files.get(index as usize);
            let from = file
                .content
                .and_then(|hash| gone.get_mut(&hash)?.pop_front());
            match from {
                Some(from) => {
                    self.still_exists[from] = true;
                    self.scan.renamed.0.push(old.get(from).path);
                    self.scan.renamed.1.push(file.path);
                }
                None => added.push(index),
            }
        }
        self.scan.added = match added.is_empty() {
            true => unhashed,
            false => merged(&unhashed, &added, &self.files),
        };
        let files = old.iter().zip(&self.still_exists);
        let removed = files.filter(|(_, &exists)| !exists);
        self.scan.removed = removed.map(|(file, _)| file.path).collect();
        let counts = &mut self.scan.counts;
        counts.added = self.scan.added.len() as u64;
        counts.changed = self.scan.changed.len() as u64;
        counts.renamed = self.scan.renamed.0.len() as u64;
        counts.removed = self.scan.removed.len() as u64;
        counts.skipped = self.scan.skipped.len() as u64;
        self.scan.files = Arc::new(self.files);
        self.scan
    }
}

/// Two sorted lists as one.
fn merged(paths: &Paths, added: &[u32], files: &Files) -> Paths {
    let added = added.iter().map(|&index| files.get(index as usize).path);
    let mut all: Vec<&[u8]> = paths.iter().chain(added).collect();
    all.sort_unstable();
    all.into_iter().collect()
}
