//! Loading the manifest file, and replacing it atomically.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::OFlags;

use super::format::{last_line, split_seal, SEAL_BYTES};
use super::tables::Manifest;
use crate::threads::both;
use crate::{Error, Result};

/// Ten million files need about 5 GB. A larger file is not a manifest.
const MAX_BYTES: u64 = 16 << 30;

/// A file of this size of which less than a sixteenth is stored on the disk is
/// sparse. A manifest never is: on a filesystem that compresses, its hashes
/// shrink to a sixth at best. Some filesystems report 0 blocks for any file.
const SPARSE_FROM_BYTES: u64 = 1 << 20;
const SPARSE_FRACTION: u64 = 16;
const BLOCK_BYTES: u64 = 512;

impl Manifest {
    /// Reads and checks the manifest at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Manifest`] if it is invalid.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = read_regular(path)?;
        Manifest::from_bytes(&bytes)
    }

    /// Replaces the manifest at `path` durably and atomically: a reader, now or
    /// after a crash, gets either the old one or the new one.
    ///
    /// # Errors
    ///
    /// As [`Manifest::to_bytes`], and [`Error::Io`] if it cannot be written. The
    /// old manifest is then unchanged.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_parts(&self.to_parts()?, path)
    }
}

/// Replaces a file by some parts and a last line, durably and atomically.
pub(super) fn save_parts(parts: &[Vec<u8>], path: &Path) -> Result<()> {
    let (file, temporary) = create_temporary(path)?;
    let written = write_durably(&file, parts).map_err(|error| Error::io(path, error));
    let result = written.and_then(|()| replace(&temporary, path));
    if result.is_err() {
        // An error of the removal would hide the first one.
        let _ = fs::remove_file(&temporary);
    }
    result
}

pub(super) fn read_regular(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: io::Error| match error.kind() {
        // `save` replaces the file by renaming, so another program did this.
        io::ErrorKind::UnexpectedEof => {
            Error::Manifest("it was truncated while it was read".into())
        }
        _ => Error::io(path, error),
    };
    let mut options = OpenOptions::new();
    // NONBLOCK: opening a FIFO must not wait for a writer.
    let options = options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_extent(&metadata).map_err(Error::Manifest)?;
    // The last line first: a large file without a checksum is not read.
    let mut tail = [0; SEAL_BYTES];
    let length = metadata.len().min(SEAL_BYTES as u64);
    let tail = &mut tail[..length as usize];
    file.read_exact_at(tail, metadata.len() - length)
        .map_err(failed)?;
    split_seal(tail).map_err(Error::Manifest)?;
    let mut bytes = allocate(metadata.len()).map_err(Error::Manifest)?;
    read_in_threads(&file, &mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Rejects a file that is not a manifest, before memory is allocated for it.
fn check_extent(metadata: &Metadata) -> std::result::Result<(), String> {
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    let size = metadata.len();
    if size > MAX_BYTES {
        return Err(format!("its {size} bytes exceed the limit of {MAX_BYTES}"));
    }
    let stored = metadata.blocks().saturating_mul(BLOCK_BYTES);
    if size >= SPARSE_FROM_BYTES && stored > 0 && stored < size / SPARSE_FRACTION {
        return Err(format!(
            "it is sparse: only {stored} of its {size} bytes are stored"
        ));
    }
    Ok(())
}

fn allocate(size: u64) -> std::result::Result<Vec<u8>, String> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    // Tried first, because `vec!` aborts the process when memory runs out.
    Vec::<u8>::new()
        .try_reserve_exact(size)
        .map_err(|_| "it does not fit into memory")?;
    Ok(vec![0; size])
}

/// Reads a file in two threads. Half of the time goes into mapping the pages of
/// `bytes`, which the kernel does in the thread that first writes to them.
fn read_in_threads(file: &File, bytes: &mut [u8]) -> io::Result<()> {
    let (one, other) = bytes.split_at_mut(bytes.len() / 2);
    let at = one.len() as u64;
    let has_read = thread::scope(|scope| {
        let thread = thread::Builder::new();
        let one = thread.spawn_scoped(scope, || file.read_exact_at(one, 0));
        file.read_exact_at(other, at)?;
        match one.map(|thread| thread.join()) {
            Ok(Ok(read)) => read.map(|()| true),
            _ => Ok::<_, io::Error>(false),
        }
    })?;
    match has_read {
        true => Ok(()),
        // The thread could not be started.
        false => file.read_exact_at(bytes, 0),
    }
}

/// Creates a file in the same folder with a name that nobody can foresee,
/// `.distill-` and 16 hexadecimal digits and `.tmp`. If a writer is killed the
/// file remains; whoever holds the lock may remove it.
fn create_temporary(path: &Path) -> Result<(File, PathBuf)> {
    if path.file_name().is_none() {
        return Err(Error::Invalid(format!(
            "{} is not the path of a file",
            path.display()
        )));
    }
    let mut options = OpenOptions::new();
    // create_new: nothing that exists is opened, neither a file nor a link.
    let options = options
        .write(true)
        .create_new(true)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32);
    loop {
        // The keys of a new RandomState are random, and so is its hash of nothing.
        let random = RandomState::new().build_hasher().finish();
        let temporary = path.with_file_name(format!(".distill-{random:016x}.tmp"));
        match options.open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(path, error)),
        }
    }
}

fn write_durably(mut file: &File, parts: &[Vec<u8>]) -> io::Result<()> {
    let write = || {
        let mut file = file;
        parts.iter().try_for_each(|part| file.write_all(part))
    };
    let hash = || {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    };
    let (written, checksum) = both(write, hash);
    written?;
    file.write_all(&last_line(checksum))?;
    file.sync_all()
}

/// Renames the file, which is atomic, and makes the rename durable with an fsync
/// of the folder.
fn replace(temporary: &Path, path: &Path) -> Result<()> {
    let failed = |error| Error::io(path, error);
    fs::rename(temporary, path).map_err(failed)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    folder.sync_all().map_err(failed)
}
