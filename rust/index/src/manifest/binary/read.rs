//! Reading a copy. Any doubt ends in `None`, and the JSON is parsed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use blake3::Hasher;

use super::super::check;
use super::super::contents::{Contents, Placed, NO_CONTENT};
use super::super::file::{open_regular, open_sealed, read_error};
use super::super::file_table::FileTable;
use super::super::lines::{self, Text};
use super::super::read::parse;
use super::super::sealed::Sealed;
use super::super::tables::Manifest;
use super::head::{copy_of, Head, BLOCK_BYTES, CHECKSUM_BYTES, HEAD_BYTES};
use crate::files::Files;
use crate::hash::Hash;
use crate::paths::Paths;
use crate::progress::{Progress, Stage};
use crate::stat::StatKey;
use crate::threads::both;
use crate::{Error, Result};

impl Manifest {
    /// Reads and checks the manifest at `path`. If its files are those of the table `known`,
    /// they are shared: one of both costs no memory.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Manifest`] if it is invalid,
    /// [`Error::Newer`] if a later version of this program wrote it, and
    /// [`Error::Interrupted`].
    pub fn load(path: &Path, known: Option<&FileTable>, progress: &dyn Progress) -> Result<Self> {
        let known = known.and_then(|table| Some((table.text?, &table.files)));
        let sealed = open_sealed(path)?;
        let Some(mut manifest) = read_copy::<Manifest>(path, &sealed, progress)? else {
            return parse(&sealed, known, progress, |error| read_error(path, error));
        };
        if let Some((_, files)) = known {
            manifest.share_files(files);
        }
        Ok(manifest)
    }

    /// Shares a table of files, if this manifest has the same.
    fn share_files(&mut self, files: &Arc<Files>) {
        if self.files == *files {
            self.contents.renumber_files(files);
            self.files = Arc::clone(files);
        }
    }
}

impl FileTable {
    /// Reads and checks the table at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Manifest`] if it is invalid,
    /// [`Error::Newer`] if a later version of this program wrote it, and
    /// [`Error::Interrupted`].
    pub fn load(path: &Path, progress: &dyn Progress) -> Result<Self> {
        let sealed = open_sealed(path)?;
        match read_copy(path, &sealed, progress)? {
            Some(table) => Ok(table),
            None => FileTable::parse(&sealed, progress, |error| read_error(path, error)),
        }
    }
}

/// Tables that a copy can be of.
pub(super) trait Tables: Sized {
    /// Bytes of the last column: the content of each file.
    const BYTES_OF_CONTENT: u64;

    /// Reads all parts but head and checksum.
    fn read(input: &mut Input) -> Option<Self>;
}

/// Reads the copy of a JSON file, and the text of that file for its checksum. `None` unless
/// both are as they have to be.
fn read_copy<T: Tables + Send>(
    path: &Path,
    sealed: &Sealed<File>,
    progress: &dyn Progress,
) -> Result<Option<T>> {
    let Some((file, head)) = open::<T>(path, sealed) else {
        return Ok(None);
    };
    let is_stopped = AtomicBool::new(false);
    let poll = |read| {
        if sealed.length > lines::BLOCK_BYTES as u64 {
            progress.report(Stage::Cache, read, sealed.length);
        }
        is_stopped.fetch_or(progress.should_stop(), Relaxed);
        !is_stopped.load(Relaxed)
    };
    let (hash, tables) = both(
        || sealed.hash(&poll),
        || {
            let mut input = Input::new(&file, head, &is_stopped);
            let tables = T::read(&mut input)?;
            input.is_whole().then_some(tables)
        },
        || {
            poll(sealed.length);
        },
    );
    if is_stopped.load(Relaxed) {
        return Err(Error::Interrupted);
    }
    let is_same = hash.is_ok_and(|hash| hash == head.text.hash);
    Ok(tables.filter(|_| is_same))
}

/// Opens the copy of a JSON file, if there is one of its text and of the right size.
fn open<T: Tables>(path: &Path, sealed: &Sealed<impl Text>) -> Option<(File, Head)> {
    let (file, metadata) = open_regular(&copy_of(path)).ok()?;
    let mut bytes = [0; HEAD_BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let head = Head::from_bytes(&bytes)?;
    let length = head.length(T::BYTES_OF_CONTENT)?;
    let fits = sealed.id() == Some(head.text) && length == metadata.len();
    // The numbers of contents and files have 32 bits, and one of them means "none".
    let is_countable = head.contents.max(head.files) < u64::from(u32::MAX);
    (fits && is_countable).then_some((file, head))
}

/// Whether there is an undamaged copy of the text of a JSON file.
pub(super) fn is_there<T: Tables>(path: &Path, sealed: &Sealed<File>) -> bool {
    let Some((file, head)) = open::<T>(path, sealed) else {
        return false;
    };
    let is_stopped = AtomicBool::new(false);
    let mut input = Input::new(&file, head, &is_stopped);
    let parts = head.length(T::BYTES_OF_CONTENT);
    let parts = parts.map_or(0, |length| length - (HEAD_BYTES + CHECKSUM_BYTES) as u64);
    let skipped = input.column(parts as usize, |_: [u8; 1]| Some(()));
    skipped.is_some() && input.is_whole()
}

/// The parts of a copy, from the first to the last.
pub(super) struct Input<'a> {
    file: &'a File,
    head: Head,
    is_stopped: &'a AtomicBool,
    at: u64,
    hasher: Hasher,
    block: Vec<u8>,
}

impl<'a> Input<'a> {
    fn new(file: &'a File, head: Head, is_stopped: &'a AtomicBool) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&head.to_bytes());
        Input {
            file,
            head,
            is_stopped,
            at: HEAD_BYTES as u64,
            hasher,
            block: Vec::new(),
        }
    }

    /// The next bytes. The length of the file has been compared with that of all parts.
    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        if self.is_stopped.load(Relaxed) {
            return None;
        }
        if self.block.len() < count {
            self.block.resize(count, 0);
        }
        let bytes = &mut self.block[..count];
        self.file.read_exact_at(bytes, self.at).ok()?;
        self.at += count as u64;
        self.hasher.update(bytes);
        Some(bytes)
    }

    fn column<const N: usize, T>(
        &mut self,
        count: usize,
        item: impl Fn([u8; N]) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut items = Vec::with_capacity(count);
        while items.len() < count {
            let bytes = self.bytes((count - items.len()).min(BLOCK_BYTES / N) * N)?;
            for chunk in bytes.as_chunks().0 {
                items.push(item(*chunk)?);
            }
        }
        Some(items)
    }

    /// The records that are not in columns, as JSON.
    fn rare(&mut self) -> Option<&[u8]> {
        self.bytes(self.head.rare as usize)
    }

    fn contents(&mut self, rare: &Manifest) -> Option<Contents> {
        let count = self.head.contents as usize;
        let hashes: Vec<Hash> = self.column(count, Some)?;
        let places = self.column(count, |bytes| Some(Placed::from_bytes(bytes)))?;
        let sums = self.column(count, |bytes: [u8; 40]| {
            let (sums, _) = bytes.as_chunks();
            let sums = <[[u8; 8]; 5]>::try_from(sums).ok()?.map(f64::from_le_bytes);
            sums.iter().all(|sum| sum.is_finite()).then_some(sums)
        })?;
        Contents::from_columns(hashes, places, sums, &rare.contents, &rare.packs)
    }

    fn paths(&mut self) -> Option<Paths> {
        let lengths = self.column(self.head.files as usize, |bytes| {
            Some(u32::from_le_bytes(bytes))
        })?;
        let mut bytes = Vec::with_capacity(self.head.paths as usize);
        while let left @ 1.. = self.head.paths as usize - bytes.len() {
            bytes.extend_from_slice(self.bytes(left.min(BLOCK_BYTES))?);
        }
        Paths::from_lengths(bytes, &lengths)
    }

    fn keys(&mut self) -> Option<Vec<StatKey>> {
        self.column(self.head.files as usize, |bytes| {
            Some(StatKey::from_bytes(bytes))
        })
    }

    /// Whether what was read is everything, and has the checksum at its end.
    fn is_whole(&self) -> bool {
        let hash = self.hasher.finalize();
        let mut checksum = [0; CHECKSUM_BYTES];
        let read = self.file.read_exact_at(&mut checksum, self.at);
        read.is_ok() && hash == blake3::Hash::from_bytes(checksum)
    }
}

impl Tables for Manifest {
    const BYTES_OF_CONTENT: u64 = 4;

    fn read(input: &mut Input) -> Option<Self> {
        let mut manifest = Manifest::from_bytes(input.rare()?).ok()?;
        let contents = input.contents(&manifest)?;
        let (paths, keys) = (input.paths()?, input.keys()?);
        let count = paths.len();
        let flags = input.column(count, |[flags]: [u8; 1]| Some(flags))?;
        let numbers = input.column(count, |bytes| {
            let number = u32::from_le_bytes(bytes);
            let is_one = (number as usize) < contents.len() || number == NO_CONTENT;
            is_one.then_some(number)
        })?;
        let hash = |&number: &u32| (number != NO_CONTENT).then(|| *contents.hash(number as usize));
        let hashes = numbers.iter().map(hash);
        let files = Files::from_columns(paths, keys, flags, hashes, &manifest.files)?;
        manifest.files = Arc::new(files);
        manifest.contents = contents;
        check::whole(&manifest.packs, manifest.contents.iter()).ok()?;
        manifest.contents.keep_numbers(&manifest.files, numbers);
        Some(manifest)
    }
}

impl Tables for FileTable {
    const BYTES_OF_CONTENT: u64 = 32;

    fn read(input: &mut Input) -> Option<Self> {
        let rare = FileTable::from_bytes(input.rare()?).ok()?;
        let (paths, keys) = (input.paths()?, input.keys()?);
        let count = paths.len();
        let flags = input.column(count, |[flags]: [u8; 1]| Some(flags))?;
        let hashes: Vec<Hash> = input.column(count, Some)?;
        let hashes = hashes
            .into_iter()
            .map(|hash| (hash != Hash::default()).then_some(hash));
        let files = Files::from_columns(paths, keys, flags, hashes, &rare.files)?;
        Some(FileTable {
            files: Arc::new(files),
            text: Some(input.head.text),
        })
    }
}
