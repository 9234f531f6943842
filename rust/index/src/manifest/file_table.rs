//! The table of files that all caches of a dataset share: it spares a new
//! configuration the hashing.

use std::cmp::Ordering;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::file::replace_with;
use super::lines::Text;
use super::read::{in_memory, parse_files, start};
use super::sealed::{Sealed, TextId};
use super::tables::Manifest;
use super::write;
use crate::files::{File, Files};
use crate::hash::Hash;
use crate::progress::{NoProgress, Progress};
use crate::scan_result::Scan;
use crate::{Error, Result};

/// What is known of each file, whatever was computed from it: size, times and
/// hash, or why it is skipped. Files that are not hashed yet are not saved.
#[derive(Clone, Debug, Default)]
pub struct FileTable {
    /// Sorted by path.
    pub(super) files: Arc<Files>,
    /// The text that they were read from, if they are still the same.
    pub(super) text: Option<TextId>,
}

impl PartialEq for FileTable {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl FileTable {
    /// A table of the files of a manifest, each as selected.
    pub fn of(files: &Files) -> Self {
        let mut files = files.clone();
        files.select_all();
        FileTable::from(Arc::new(files))
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Replaces the table at `path` durably and atomically.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written. The old table is then unchanged.
    pub fn save(&self, path: &Path) -> Result<()> {
        replace_with(path, &NoProgress, |out| write::file_table(&self.files, out))
    }

    /// Parses the bytes of a file.
    ///
    /// # Errors
    ///
    /// As [`FileTable::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        FileTable::parse(&Sealed::bytes(bytes)?, &NoProgress, in_memory)
    }

    pub(super) fn parse<T: Text>(
        sealed: &Sealed<T>,
        progress: &dyn Progress,
        failed: impl Fn(io::Error) -> Error + Sync,
    ) -> Result<Self> {
        let ((), files) = sealed.parse(None, progress, failed, start, parse_files)?;
        let text = sealed.id();
        Ok(FileTable { files, text })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        write::in_memory(|out| write::file_table(&self.files, out))
    }

    /// Takes over what a scan found. A scan of a list of files leaves what is known
    /// of the others. Returns whether the table changed.
    pub fn apply(&mut self, scan: &Scan) -> bool {
        let files = match scan.is_partial {
            false => Arc::clone(&scan.files),
            true => Arc::new(self.updated(&scan.files)),
        };
        if Arc::ptr_eq(&self.files, &files) {
            return false;
        }
        let differs = !saved(&self.files).eq(saved(&files));
        *self = FileTable::from(files);
        differs
    }

    /// Records the hash of a file that the scan did not hash. Returns whether there is
    /// such a file.
    pub fn set_hash(&mut self, path: &[u8], hash: Hash) -> bool {
        self.text = None;
        Files::set_hash(&mut self.files, path, hash)
    }

    /// Takes over the files of another table, in addition to its own. Of a file that both
    /// have, the later state counts. If these are the same files, the tables are shared.
    pub fn adopt(&mut self, other: &FileTable) {
        let files = &other.files;
        let is_as_new = |(old, new): (File, File)| {
            let is_same = (old.path, old.key) == (new.path, new.key);
            is_same && (old.is_pending() || old == new)
        };
        let is_same = self.files.len() == files.len();
        match is_same && self.files.iter().zip(files.iter()).all(is_as_new) {
            true => *self = other.clone(),
            false => {
                self.text = None;
                Files::merge(&mut self.files, files);
            }
        }
    }

    /// What was scanned, and this table's files that were not looked at.
    fn updated(&self, scanned: &Files) -> Files {
        let mut merged = Files::default();
        let (mut old, mut new) = (self.files.iter().peekable(), scanned.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => old.path.cmp(new.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let known = old.next_if(|_| order.is_le());
            let found = new.next_if(|_| order.is_ge());
            // A file that was not listed was not looked at.
            let file = found.filter(|found| found.selected).or(known).or(found);
            file.into_iter().for_each(|file| merged.push(file));
        }
        merged.select_all();
        merged
    }
}

impl Manifest {
    /// The files as a table of their own, which is shared if all are selected.
    pub fn file_table(&self) -> FileTable {
        match self.files.iter().all(|file| file.selected) {
            true => FileTable::from(Arc::clone(&self.files)),
            false => FileTable::of(&self.files),
        }
    }
}

impl From<Arc<Files>> for FileTable {
    fn from(files: Arc<Files>) -> Self {
        FileTable { files, text: None }
    }
}

/// The files that are saved.
fn saved(files: &Files) -> impl Iterator<Item = File<'_>> {
    files.iter().filter(|file| !file.is_pending())
}
