//! The table of files that all caches of a dataset share: it spares a new
//! configuration the hashing.

use std::cmp::Ordering;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::cursor::Parsed;
use super::file::{open_sealed, read_error, replace_with};
use super::lines::Lines;
use super::read::{self, parse_files, Sealed};
use super::tables::Manifest;
use super::write;
use crate::files::{File, Files};
use crate::hash::Hash;
use crate::scan_result::Scan;
use crate::Result;

/// What is known of each file, whatever was computed from it: size, times and
/// hash, or why it is skipped. Files that are not hashed yet are not saved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileTable {
    /// Sorted by path.
    pub(super) files: Arc<Files>,
}

impl FileTable {
    /// A table of the files of a manifest, each as selected.
    pub fn of(files: &Files) -> Self {
        let mut files = files.clone();
        files.select_all();
        FileTable {
            files: Arc::new(files),
        }
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Reads and checks the table at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Manifest`] if it is invalid,
    /// [`Error::Newer`] if a later version of this program wrote it.
    pub fn load(path: &Path) -> Result<Self> {
        let sealed = open_sealed(path)?;
        let length = sealed.length;
        sealed.parse(
            |lines| parse(lines, length),
            |error| read_error(path, error),
        )
    }

    /// Replaces the table at `path` durably and atomically.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written. The old table is then unchanged.
    pub fn save(&self, path: &Path) -> Result<()> {
        replace_with(path, |out| write::file_table(&self.files, out))
    }

    /// Parses the bytes of a file.
    ///
    /// # Errors
    ///
    /// As [`FileTable::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let sealed = Sealed::bytes(bytes)?;
        let length = sealed.length;
        sealed.parse(|lines| parse(lines, length), read::in_memory)
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
        let differs = !Arc::ptr_eq(&self.files, &files) && !saved(&self.files).eq(saved(&files));
        self.files = files;
        differs
    }

    /// Records the hash of a file that the scan did not hash. Returns whether there is
    /// such a file.
    pub fn set_hash(&mut self, path: &[u8], hash: Hash) -> bool {
        Files::set_hash(&mut self.files, path, hash)
    }

    /// Takes over the files of another table, in addition to its own. If these are the same
    /// files, the tables are shared.
    pub fn adopt(&mut self, other: &FileTable) {
        let files = &other.files;
        let is_as_new = |(old, new): (File, File)| {
            let is_same = (old.path, old.key) == (new.path, new.key);
            is_same && (old.is_pending() || old == new)
        };
        let is_same = self.files.len() == files.len();
        match is_same && self.files.iter().zip(files.iter()).all(is_as_new) {
            true => self.files = Arc::clone(files),
            false => drop(Files::merge(&mut self.files, files)),
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
    /// As [`Manifest::load`]. If the files are those of a table, they are shared: one of
    /// both costs no memory.
    ///
    /// # Errors
    ///
    /// As [`Manifest::load`].
    pub fn load_beside(path: &Path, known: &FileTable) -> Result<Self> {
        Manifest::load_with(path, Some(&known.files).filter(|known| !known.is_empty()))
    }

    /// The files as a table of their own, which is shared if all are selected.
    pub fn file_table(&self) -> FileTable {
        match self.files.iter().all(|file| file.selected) {
            true => FileTable {
                files: Arc::clone(&self.files),
            },
            false => FileTable::of(&self.files),
        }
    }
}

fn parse<R: Read>(lines: &mut Lines<R>, length: u64) -> Parsed<FileTable> {
    read::start(lines)?;
    let files = parse_files(lines, length, None, None)?;
    Ok(FileTable { files })
}

/// The files that are saved.
fn saved(files: &Files) -> impl Iterator<Item = File<'_>> {
    files.iter().filter(|file| !file.is_pending())
}
