//! The table of files that all caches of a dataset share: it spares a new
//! configuration the hashing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::cursor::Cursor;
use super::file::{read_regular, save_parts};
use super::format::{check_not_newer, seal, split_seal, version};
use super::read::{check_seal, parse_files};
use super::write;
use crate::hash::Hash;
use crate::records::{merge_files, set_hash, FileEntry};
use crate::scan_result::{PathBytes, Scan};
use crate::{Error, Result};

/// What is known of each file, whatever was computed from it: size, times and
/// hash, or why it is skipped. Files that are not hashed yet are not saved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileTable {
    /// Sorted by path.
    files: Arc<Vec<FileEntry>>,
}

impl FileTable {
    /// A table of the files of a manifest, each as selected.
    pub fn of(files: &[FileEntry]) -> Self {
        FileTable {
            files: Arc::new(selected(files.iter())),
        }
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Reads and checks the table at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Manifest`] if it is invalid,
    /// [`Error::Newer`] if a later version of this program wrote it.
    pub fn load(path: &Path) -> Result<Self> {
        FileTable::from_bytes(&read_regular(path)?)
    }

    /// Replaces the table at `path` durably and atomically.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written. The old table is then unchanged.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_parts(&[write::file_table(&self.files)], path)
    }

    /// Parses the bytes of a file.
    ///
    /// # Errors
    ///
    /// As [`FileTable::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (body, checksum) = split_seal(bytes).map_err(Error::Manifest)?;
        check_seal(body, checksum)?;
        check_not_newer(body)?;
        let parse = || {
            let mut cursor = Cursor::new(body)?;
            version(&mut cursor)?;
            cursor.expect(",\n")?;
            parse_files(cursor.rest())
        };
        let files = parse().map_err(Error::Manifest)?;
        Ok(FileTable {
            files: Arc::new(files),
        })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        seal(write::file_table(&self.files))
    }

    /// The entry of a path.
    pub(crate) fn find(&self, path: &[u8]) -> Option<&FileEntry> {
        let at = self.files.binary_search_by(|file| (*file.path).cmp(path));
        at.ok().map(|index| &self.files[index])
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
        set_hash(Arc::make_mut(&mut self.files).as_mut_slice(), path, hash)
    }

    /// Takes over the files of another table, in addition to its own.
    pub fn adopt(&mut self, other: &FileTable) {
        merge_files(Arc::make_mut(&mut self.files), &other.files);
    }

    fn updated(&self, scanned: &[FileEntry]) -> Vec<FileEntry> {
        let mut merged: BTreeMap<&PathBytes, &FileEntry> =
            scanned.iter().map(|file| (&file.path, file)).collect();
        for file in self.files.iter() {
            // A file that was not listed was not looked at.
            let entry = merged.entry(&file.path).or_insert(file);
            if !entry.selected {
                *entry = file;
            }
        }
        selected(merged.into_values())
    }
}

/// The files that are saved.
fn saved(files: &[FileEntry]) -> impl Iterator<Item = &FileEntry> {
    files.iter().filter(|file| !file.is_pending())
}

/// In a table, whether a file is selected has no meaning.
fn selected<'a>(files: impl Iterator<Item = &'a FileEntry>) -> Vec<FileEntry> {
    let entry = |file: &FileEntry| FileEntry {
        selected: true,
        ..file.clone()
    };
    files.map(entry).collect()
}
