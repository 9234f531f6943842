//! The lines of a file, read in blocks and hashed on the way, so that memory does not
//! grow with the file.

use std::io::{self, Read};

use memchr::memchr;

use super::cursor::Parsed;

const BLOCK_BYTES: usize = 1 << 20;
/// Enough of the start of a file for its version.
const START_BYTES: usize = 64;

/// The text of a file before its last line.
pub(super) struct Lines<R> {
    source: R,
    /// Bytes of the source that were not read yet.
    left: u64,
    hasher: blake3::Hasher,
    start: Vec<u8>,
    block: Vec<u8>,
    /// The part of `block` that was not returned yet.
    unread: std::ops::Range<usize>,
    failed: Option<io::Error>,
}

impl<R: Read> Lines<R> {
    /// The next `length` bytes of a source.
    pub(super) fn new(source: R, length: u64) -> Self {
        Lines {
            source,
            left: length,
            hasher: blake3::Hasher::new(),
            start: Vec::new(),
            block: Vec::new(),
            unread: 0..0,
            failed: None,
        }
    }

    /// The next line, without the newline at its end.
    pub(super) fn line(&mut self) -> Parsed<&str> {
        let mut searched = 0;
        let length = loop {
            let rest = &self.block[self.unread.clone()];
            if let Some(found) = memchr(b'\n', &rest[searched..]) {
                break searched + found;
            }
            searched = rest.len();
            if !self.fill() {
                return Err("it ends in the middle of a table".into());
            }
        };
        let line = self.unread.start..self.unread.start + length;
        self.unread.start = line.end + 1;
        std::str::from_utf8(&self.block[line]).map_err(|_| "it is not UTF-8".into())
    }

    /// Fails unless all lines were returned.
    pub(super) fn end(&mut self) -> Parsed<()> {
        match self.unread.is_empty() && !self.fill() {
            true => Ok(()),
            false => Err("there is text after the last table".into()),
        }
    }

    /// Reads what is left. Returns the hash of the text, and its first bytes.
    pub(super) fn finish(mut self) -> io::Result<(blake3::Hash, Vec<u8>)> {
        loop {
            self.unread = 0..0;
            if !self.fill() {
                break;
            }
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok((self.hasher.finalize(), self.start)),
        }
    }

    /// Reads more of the source behind what is unread. False at its end.
    fn fill(&mut self) -> bool {
        if self.left == 0 || self.failed.is_some() {
            return false;
        }
        self.block.copy_within(self.unread.clone(), 0);
        let unread = self.unread.len();
        self.unread = 0..unread;
        // A line longer than a block lets it grow by half.
        let wanted = BLOCK_BYTES.max(unread / 2) as u64;
        let wanted = wanted.min(self.left) as usize;
        if self.block.len() < unread + wanted {
            self.block.resize(unread + wanted, 0);
        }
        let new = &mut self.block[unread..unread + wanted];
        if let Err(error) = self.source.read_exact(new) {
            self.failed = Some(error);
            return false;
        }
        self.hasher.update(new);
        let more = START_BYTES.saturating_sub(self.start.len()).min(wanted);
        self.start.extend_from_slice(&new[..more]);
        self.left -= wanted as u64;
        self.unread.end += wanted;
        true
    }
}
