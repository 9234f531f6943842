//! An open pack.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

#[cfg(target_os = "linux")]
use rustix::fs::Advice;
use rustix::fs::OFlags;

use crate::{Checksums, Layout};

/// The smallest window that systems are set to.
#[cfg(target_os = "linux")]
const WINDOW_BYTES: usize = 128 << 10;

/// An open pack, read at explicit positions: threads and forked processes share it.
pub struct PackFile(File);

impl PackFile {
    /// Opens a regular file. Symbolic links are not followed, and a FIFO does not block.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        // Otherwise each row that is not in memory costs a whole window of read-ahead,
        // up to megabytes. What is wanted is announced by `will_need`. Only a hint, so
        // an error does not matter.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        Ok(Self(file))
    }

    /// What the system knows about the file.
    ///
    /// # Errors
    ///
    /// If the system cannot tell.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// Fills `to` with the bytes at `offset`, and returns how many there are: less
    /// than wanted only at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < to.len() {
            match self.0.read_at(&mut to[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Lets the system read bytes that will be wanted soon. Does not wait for them.
    pub fn will_need(&self, offset: u64, length: u64) {
        // Of one request, Linux reads no more than the window of read-ahead.
        #[cfg(target_os = "linux")]
        for start in (offset..offset + length).step_by(WINDOW_BYTES) {
            let length = (offset + length - start).min(WINDOW_BYTES as u64);
            if let Some(length) = NonZeroU64::new(length) {
                let _ = rustix::fs::fadvise(&self.0, start, Some(length), Advice::WillNeed);
            }
        }
    }

    /// The rows in a range that do not match their checksum, or that the file ends
    /// before; reads them in one go.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn damaged_rows(
        &self,
        checksums: &Checksums,
        layout: Layout,
        rows: Range<usize>,
    ) -> io::Result<Vec<usize>> {
        let mut data = vec![0; rows.len() * layout.row_bytes];
        let count = self.read_at(&mut data, layout.offset(rows.start))?;
        data.truncate(count);
        let whole = data.chunks_exact(layout.row_bytes);
        let mut damaged: Vec<usize> = (rows.start + whole.len()..rows.end).collect();
        let numbered = rows.zip(whole);
        damaged.extend(
            numbered
                .filter(|(number, row)| !checksums.matches(*number, row))
                .map(|(number, _)| number),
        );
        damaged.sort_unstable();
        Ok(damaged)
    }
}
