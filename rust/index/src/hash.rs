//! The content hash of one file, taken so that it is the hash of some state
//! that the file really had.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{fstat, openat, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::entry::Root;
use crate::reason;
use crate::sniff::{sniff, SNIFF_BYTES};
use crate::stat::{file_type, StatKey};
use crate::watch::{Stage, Watch};
use crate::{Error, Result};

/// The BLAKE3 of a file's bytes.
pub type Hash = [u8; 32];

/// Bytes of a row's checksum.
pub const ROW_CHECKSUM_BYTES: usize = 8;

/// Fits the second-level cache beside the hash's own state, so that the hash
/// reads what the copy from the page cache has just brought in. Never mmap: a
/// file truncated under a mapping kills the process.
const BUFFER_BYTES: usize = 128 * 1024;

/// A file that keeps changing is read this often before it is given up.
const ATTEMPTS: usize = 3;

/// What came of hashing a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It had these stamps both before and after its bytes were read.
    Hashed(StatKey, Hash),
    /// It cannot be used, and why. The stamps are missing if it did not open.
    Skipped(Option<StatKey>, String),
    /// It is no longer there.
    Vanished,
    /// We were told to stop.
    Stopped,
}

/// Called after each buffer with its length; `false` stops.
pub(crate) type Tick<'a> = &'a dyn Fn(u64) -> bool;

/// Reads and hashes files, with one buffer for all of them.
pub(crate) struct Hasher<'a> {
    root: &'a Root,
    max_bytes: u64,
    buffer: Vec<u8>,
}

impl<'a> Hasher<'a> {
    pub(crate) fn new(root: &'a Root, max_bytes: u64) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Hasher {
            root,
            max_bytes,
            buffer,
        }
    }

    /// Hashes the file at `path`, which may be a link if it was `linked` when
    /// the folder was walked.
    pub(crate) fn hash(&mut self, path: &[u8], linked: bool, tick: Tick) -> Outcome {
        for _ in 0..ATTEMPTS {
            let result = open(self.root, path, linked)
                .and_then(|fd| self.attempt(&mut File::from(fd), tick));
            match result {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {} // it changed meanwhile
                Err(error) => return failed(&error),
            }
        }
        Outcome::Skipped(None, reason::UNSTABLE.into())
    }

    /// One reading, or `None` if the file changed meanwhile.
    fn attempt(&mut self, file: &mut File, tick: Tick) -> io::Result<Option<Outcome>> {
        let before = fstat(&*file)?;
        let key = self.root.key(&*file, &before);
        let skipped = |reason: &str| Ok(Some(Outcome::Skipped(Some(key), reason.into())));
        if file_type(&before) != FileType::RegularFile {
            return skipped(reason::NOT_REGULAR);
        }
        if let Some(reason) = reason_by_size(key.size, self.max_bytes) {
            return skipped(reason);
        }
        let read = self.read(file, key.size, tick)?;
        let unchanged = self.root.key(&*file, &fstat(&*file)?) == key;
        match read {
            Content::Stopped => Ok(Some(Outcome::Stopped)),
            _ if !unchanged => Ok(None),
            Content::Hashed(hash, size) if size == key.size => Ok(Some(Outcome::Hashed(key, hash))),
            Content::Hashed(..) => Ok(None),
            Content::Unrecognised => skipped(reason::UNRECOGNISED),
        }
    }

    /// Reads at most a byte more than `size`, so that a file that grows as
    /// fast as we read comes to an end.
    fn read(&mut self, file: &mut File, size: u64, tick: Tick) -> io::Result<Content> {
        let mut file = file.take(size.saturating_add(1));
        let mut hasher = blake3::Hasher::new();
        let mut total = 0;
        loop {
            let filled = fill(&mut file, &mut self.buffer)?;
            let block = &self.buffer[..filled];
            if total == 0 && !sniff(&block[..filled.min(SNIFF_BYTES)]) {
                return Ok(Content::Unrecognised);
            }
            hasher.update(block);
            total += filled as u64;
            if !tick(filled as u64) {
                return Ok(Content::Stopped);
            }
            if filled < self.buffer.len() {
                return Ok(Content::Hashed(*hasher.finalize().as_bytes(), total));
            }
        }
    }
}

enum Content {
    Hashed(Hash, u64),
    Unrecognised,
    Stopped,
}

/// Why a file of this size is skipped unopened.
pub(crate) fn reason_by_size(size: u64, max_bytes: u64) -> Option<&'static str> {
    match size {
        0 => Some(reason::EMPTY),
        _ if size > max_bytes => Some(reason::TOO_LARGE),
        _ => None,
    }
}

/// Opens without following a link that the walk did not allow, and without
/// waiting for the writer of a FIFO that took the file's place.
fn open(root: &Root, path: &[u8], linked: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match (linked, root.follow_links) {
        (false, _) => openat(&root.fd, path, flags, Mode::empty()),
        (true, true) => openat(&root.fd, path, flags - OFlags::NOFOLLOW, Mode::empty()),
        // The link may lead elsewhere by now: resolve it again, and open the
        // place that was checked instead of the link.
        (true, false) => match root.resolve_inside(path)? {
            Some(target) => openat(&root.fd, target.as_path(), flags, Mode::empty()),
            None => return Err(Errno::LOOP.into()),
        },
    };
    Ok(fd?)
}

/// What an error on opening or reading means for the file.
fn failed(error: &io::Error) -> Outcome {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR) => Outcome::Vanished,
        // O_NOFOLLOW met a link that was a file a moment ago.
        Some(Errno::LOOP) => Outcome::Skipped(None, reason::UNSTABLE.into()),
        // Sockets cannot be opened.
        Some(Errno::NXIO) => Outcome::Skipped(None, reason::NOT_REGULAR.into()),
        _ => Outcome::Skipped(None, reason::unreadable(error)),
    }
}

/// The hash of the bytes that a file has now.
pub fn hash_file(path: &Path, watch: &dyn Watch) -> Result<Hash> {
    let failed = |error: io::Error| Error::io(path, error);
    let mut options = OpenOptions::new();
    // Without waiting, should a FIFO stand there.
    let options = options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let mut file = options.open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hasher = blake3::Hasher::new();
    loop {
        match fill(&mut file, &mut buffer).map_err(failed)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            filled => hasher.update(&buffer[..filled]),
        };
        watch.progress(Stage::Hash, hasher.count(), size);
        if watch.should_stop() {
            return Err(Error::Interrupted);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The first [`ROW_CHECKSUM_BYTES`] of the BLAKE3 of each `row_bytes` of
/// `data`, one after the other. A row that is not whole gets none.
pub fn checksum_rows(data: &[u8], row_bytes: usize) -> Vec<u8> {
    let mut sums = Vec::new();
    for row in data.chunks_exact(row_bytes.max(1)) {
        sums.extend_from_slice(&blake3::hash(row).as_bytes()[..ROW_CHECKSUM_BYTES]);
    }
    sums
}
