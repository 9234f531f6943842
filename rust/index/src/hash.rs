//! BLAKE3 of files and of rows.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::progress::{Progress, Stage};
use crate::{Error, Result};

/// BLAKE3 of a file's bytes.
pub type Hash = [u8; 32];

/// Size of a row's checksum in bytes.
pub const ROW_CHECKSUM_BYTES: usize = 8;

/// Small enough for the second-level cache, so that BLAKE3 reads there what was
/// just copied from the page cache. Files are not mapped, because a file that
/// is truncated while it is mapped kills the process.
pub(crate) const BUFFER_BYTES: usize = 128 * 1024;

/// BLAKE3 of the bytes that a file has now.
///
/// # Errors
///
/// If the file cannot be read, or `progress` stops the operation.
pub fn hash_file(path: &Path, progress: &dyn Progress) -> Result<Hash> {
    let failed = |error: io::Error| Error::io(path, error);
    let mut options = OpenOptions::new();
    // NONBLOCK: opening a FIFO must not wait for a writer.
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
        progress.report(Stage::Hash, hasher.count(), size);
        if progress.should_stop() {
            return Err(Error::Interrupted);
        }
    }
}

/// Reads until the buffer is full or the file ends. Returns the number of bytes.
pub(crate) fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
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

/// The first [`ROW_CHECKSUM_BYTES`] of the BLAKE3 of each row of `row_bytes`
/// bytes in `data`, concatenated. An incomplete last row is ignored.
pub fn checksum_rows(data: &[u8], row_bytes: usize) -> Vec<u8> {
    let mut sums = Vec::new();
    for row in data.chunks_exact(row_bytes.max(1)) {
        sums.extend_from_slice(&blake3::hash(row).as_bytes()[..ROW_CHECKSUM_BYTES]);
    }
    sums
}
