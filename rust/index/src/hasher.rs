//! The content hash of a file of a dataset, of a state that the file really had.

use std::fs::File;
use std::io::{self, Read};

use rustix::fd::OwnedFd;
use rustix::fs::{fstat, openat, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::away::is_away;
use crate::hash::{fill, Hash, BUFFER_BYTES};
use crate::progress::Tick;
use crate::root::Root;
use crate::skip_reason::{self, SkipReason};
use crate::stat::{file_type, StatKey};

/// A file that changes during this many attempts to read it is skipped.
const ATTEMPTS: usize = 3;

/// The outcome of hashing a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Its hash, and the key that it had both before and after it was read.
    Hashed(StatKey, Hash),
    /// Why it is skipped, and its key if it could be opened.
    Skipped(Option<StatKey>, SkipReason),
    /// It no longer exists.
    Vanished,
    /// It cannot be had at the moment.
    Away(Errno),
    /// The operation was stopped.
    Stopped,
}

/// Hashes files of a dataset, with one buffer for all of them.
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

    /// Hashes the file at `path`, and calls `tick` with the length of each
    /// buffer. `linked`: it was a symbolic link when it was found, and may
    /// still be one.
    pub(crate) fn hash(&mut self, path: &[u8], linked: bool, tick: Tick) -> Outcome {
        for _ in 0..ATTEMPTS {
            let result = open(self.root, path, linked)
                .and_then(|fd| self.attempt(&mut File::from(fd), tick));
            match result {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {} // the file changed
                Err(error) => return failed(&error),
            }
        }
        Outcome::Skipped(None, skip_reason::UNSTABLE.clone())
    }

    /// Reads the file once. `None` if it changed while it was read.
    fn attempt(&mut self, file: &mut File, tick: Tick) -> io::Result<Option<Outcome>> {
        let before = fstat(&*file)?;
        let key = self.root.key(&*file, &before);
        let skipped = |reason: &SkipReason| Ok(Some(Outcome::Skipped(Some(key), reason.clone())));
        if file_type(&before) != FileType::RegularFile {
            return skipped(&skip_reason::NOT_REGULAR);
        }
        if let Some(reason) = skip_reason::by_size(key.size, self.max_bytes) {
            return skipped(reason);
        }
        let read = self.read(file, key.size, tick)?;
        let unchanged = self.root.key(&*file, &fstat(&*file)?) == key;
        match read {
            Reading::Stopped => Ok(Some(Outcome::Stopped)),
            _ if !unchanged => Ok(None),
            Reading::Hashed(hash, size) if size == key.size => Ok(Some(Outcome::Hashed(key, hash))),
            Reading::Hashed(..) => Ok(None),
        }
    }

    /// Reads at most `size` + 1 bytes: this is enough to detect that the file
    /// grew, and ends even if it grows as fast as it is read.
    fn read(&mut self, file: &mut File, size: u64, tick: Tick) -> io::Result<Reading> {
        let mut file = file.take(size.saturating_add(1));
        let mut hasher = blake3::Hasher::new();
        let mut total = 0;
        loop {
            let filled = fill(&mut file, &mut self.buffer)?;
            let block = &self.buffer[..filled];
            hasher.update(block);
            total += filled as u64;
            if !tick(filled as u64) {
                return Ok(Reading::Stopped);
            }
            if filled < self.buffer.len() {
                return Ok(Reading::Hashed(*hasher.finalize().as_bytes(), total));
            }
        }
    }
}

enum Reading {
    /// The hash, and the number of bytes read.
    Hashed(Hash, u64),
    Stopped,
}

/// Opens a file without waiting for the writer of a FIFO, and follows a
/// symbolic link only if it was `linked` when it was found.
fn open(root: &Root, path: &[u8], linked: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match (linked, root.follow_links) {
        (false, _) => openat(&root.fd, path, flags, Mode::empty()),
        (true, true) => openat(&root.fd, path, flags - OFlags::NOFOLLOW, Mode::empty()),
        // The link may have changed since: resolve it again, and open the
        // checked target instead of the link.
        (true, false) => match root.resolve_inside(path)? {
            Some(target) => openat(&root.fd, target.as_path(), flags, Mode::empty()),
            None => return Err(Errno::LOOP.into()),
        },
    };
    Ok(fd?)
}

/// The outcome for a file that could not be opened or read.
fn failed(error: &io::Error) -> Outcome {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR) => Outcome::Vanished,
        // O_NOFOLLOW failed: what was a file a moment ago is now a link.
        Some(Errno::LOOP) => Outcome::Skipped(None, skip_reason::UNSTABLE.clone()),
        // Sockets cannot be opened.
        Some(Errno::NXIO) => Outcome::Skipped(None, skip_reason::NOT_REGULAR.clone()),
        Some(errno) if is_away(errno) => Outcome::Away(errno),
        _ => Outcome::Skipped(None, skip_reason::unreadable(error)),
    }
}
