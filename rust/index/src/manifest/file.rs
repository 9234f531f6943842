//! Opening the manifest file, and replacing it atomically.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::format::{split_seal, SEAL_BYTES};
use super::sealed::Sealed;
use super::tables::Manifest;
use super::write::{sealed, Writer};
use crate::progress::Progress;
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
    /// Replaces the manifest at `path` durably and atomically: a reader, now or
    /// after a crash, gets either the old one or the new one.
    ///
    /// # Errors
    ///
    /// As [`Manifest::to_bytes`], [`Error::Io`] if it cannot be written, and
    /// [`Error::Interrupted`]. The old manifest is then unchanged.
    pub fn save(&self, path: &Path, progress: &dyn Progress) -> Result<()> {
        self.check()?;
        replace_with(path, progress, |out| self.write(out))
    }
}

/// Replaces a file by some text and a last line, durably and atomically.
pub(super) fn replace_with(
    path: &Path,
    progress: &dyn Progress,
    text: impl FnOnce(&mut Writer),
) -> Result<()> {
    replace_by(path, |file| sealed(file, progress, text))
}

/// Replaces a file by what `write` writes, durably and atomically.
pub(super) fn replace_by(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let (mut file, temporary) = create_temporary(path)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    let written = written.map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Error::Interrupted,
        _ => Error::io(path, error),
    });
    let result = written.and_then(|()| replace(&temporary, path));
    if result.is_err() {
        // An error of the removal would hide the first one.
        let _ = fs::remove_file(&temporary);
    }
    result
}

pub(super) fn read_error(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        // `save` replaces the file by renaming, so another program did this.
        io::ErrorKind::UnexpectedEof => {
            Error::Manifest("it was truncated while it was read".into())
        }
        _ => Error::io(path, error),
    }
}

/// Opens a file of this format, and checks that it has a last line: a large file without
/// one is not read.
pub(super) fn open_sealed(path: &Path) -> Result<Sealed<File>> {
    let failed = |error| read_error(path, error);
    let (file, metadata) = open_regular(path)?;
    let mut tail = [0; SEAL_BYTES];
    let length = metadata.len().min(SEAL_BYTES as u64);
    let tail = &mut tail[..length as usize];
    file.read_exact_at(tail, metadata.len() - length)
        .map_err(failed)?;
    let (_, checksum) = split_seal(tail).map_err(Error::Manifest)?;
    Ok(Sealed {
        text: file,
        length: metadata.len() - length,
        checksum: checksum.to_vec(),
    })
}

/// Opens a file that is not a device, and not larger than it can be.
pub(super) fn open_regular(path: &Path) -> Result<(File, Metadata)> {
    let failed = |error| read_error(path, error);
    let mut options = OpenOptions::new();
    // NONBLOCK: opening a FIFO must not wait for a writer.
    let options = options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_extent(&metadata).map_err(Error::Manifest)?;
    Ok((file, metadata))
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

/// Renames the file, which is atomic, and makes the rename durable with an fsync
/// of the folder.
fn replace(temporary: &Path, path: &Path) -> Result<()> {
    let failed = |error| Error::io(path, error);
    fs::rename(temporary, path).map_err(failed)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    folder.sync_all().map_err(failed)
}
