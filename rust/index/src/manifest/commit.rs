//! The manifest file: read whole, replaced whole.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::fs::OFlags;

use super::read::{split_seal, SEAL_BYTES};
use super::write::last_line;
use super::Manifest;
use crate::pool::both;
use crate::{Error, Result};

/// Ten million files need about 5 GB. A larger file is none of ours.
const MAX_BYTES: u64 = 16 << 30;

/// A file of this size that takes a smaller share of the disk is full of holes.
/// A manifest has none, and its hashes compress to a sixth at best. (Some
/// filesystems do not tell, and say 0.)
const HOLES_FROM_BYTES: u64 = 1 << 20;
const LEAST_SHARE: u64 = 16;
const BLOCK_BYTES: u64 = 512;

impl Manifest {
    /// Reads and checks the manifest at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = read_regular(path)?;
        Manifest::from_bytes(&bytes)
    }

    /// Replaces the manifest at `path`, durably and at once: whoever reads it,
    /// now or after a crash, gets the old one or the new one.
    pub fn save(&self, path: &Path) -> Result<()> {
        let parts = self.to_parts()?;
        let temporary = beside(path)?;
        let result = write_durably(&temporary, &parts).and_then(|()| replace(&temporary, path));
        if result.is_err() {
            // The first error tells more than one from this would.
            let _ = fs::remove_file(&temporary);
        }
        result
    }
}

fn read_regular(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: io::Error| match error.kind() {
        // Whoever replaces a manifest renames; this one was cut in its place.
        io::ErrorKind::UnexpectedEof => Error::Manifest("it was cut while it was read".into()),
        _ => Error::io(path, error),
    };
    let mut options = OpenOptions::new();
    // Without waiting, should a FIFO stand there.
    let options = options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_extent(&metadata).map_err(Error::Manifest)?;
    // The seal first, so that a large file without one costs nothing.
    let mut tail = [0; SEAL_BYTES];
    let length = metadata.len().min(SEAL_BYTES as u64);
    let tail = &mut tail[..length as usize];
    file.read_exact_at(tail, metadata.len() - length)
        .map_err(failed)?;
    split_seal(tail).map_err(Error::Manifest)?;
    let mut bytes = room_for(metadata.len()).map_err(Error::Manifest)?;
    read_in_threads(&file, &mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Refuses what no writer of ours has left, before memory is asked for it.
fn check_extent(metadata: &Metadata) -> std::result::Result<(), String> {
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    }
    let size = metadata.len();
    if size > MAX_BYTES {
        return Err(format!("its {size} bytes exceed {MAX_BYTES}"));
    }
    let held = metadata.blocks().saturating_mul(BLOCK_BYTES);
    if size >= HOLES_FROM_BYTES && held > 0 && held < size / LEAST_SHARE {
        return Err(format!("its {size} bytes are holes but for {held}"));
    }
    Ok(())
}

fn room_for(size: u64) -> std::result::Result<Vec<u8>, String> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    // Asked for first, because what `vec!` cannot have aborts the process.
    Vec::<u8>::new()
        .try_reserve_exact(size)
        .map_err(|_| "it does not fit into memory")?;
    Ok(vec![0; size])
}

/// Half of the time of a read goes into the pages that it is read into.
fn read_in_threads(file: &File, bytes: &mut [u8]) -> io::Result<()> {
    let (one, other) = bytes.split_at_mut(bytes.len() / 2);
    let at = one.len() as u64;
    thread::scope(|scope| {
        let thread = thread::Builder::new();
        let one = thread.spawn_scoped(scope, || file.read_exact_at(one, 0))?;
        file.read_exact_at(other, at)?;
        one.join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended")))
    })
}

/// A name in the same folder that no other writer uses: `.NAME.PID-N.tmp`.
/// What a killed writer leaves behind may be removed by whoever holds the lock.
fn beside(path: &Path) -> Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::Invalid(format!("{} names no file", path.display())));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}-{next}.tmp", std::process::id()));
    Ok(path.with_file_name(temporary))
}

fn write_durably(path: &Path, parts: &[Vec<u8>]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        // Never through a link that someone planted under that name.
        let options = options
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let file = options.open(path)?;
        let write = || parts.iter().try_for_each(|part| (&file).write_all(part));
        let hash = || {
            let mut hasher = blake3::Hasher::new();
            for part in parts {
                hasher.update(part);
            }
            hasher.finalize()
        };
        let (written, checksum) = both(write, hash);
        written?;
        (&file).write_all(&last_line(checksum))?;
        file.sync_all()
    };
    write().map_err(|error| Error::io(path, error))
}

/// The commit is the rename; the folder's fsync makes it last.
fn replace(temporary: &Path, path: &Path) -> Result<()> {
    let failed = |error| Error::io(path, error);
    fs::rename(temporary, path).map_err(failed)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    folder.sync_all().map_err(failed)
}
