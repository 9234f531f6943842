//! The lines of a text, read in blocks, so that memory does not grow with it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memchr::memchr;

use super::cursor::Parsed;
use crate::progress::Tick;

pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// A text of which several threads may read parts.
pub(super) trait Text: Sync {
    /// Reads exactly what fits into `block`, from a byte of the text on.
    fn read_at(&self, block: &mut [u8], at: u64) -> io::Result<()>;
}

impl Text for File {
    fn read_at(&self, block: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(block, at)
    }
}

impl Text for &[u8] {
    fn read_at(&self, block: &mut [u8], at: u64) -> io::Result<()> {
        let part = self.get(at as usize..).and_then(|r| r.get(..block.len()));
        block.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The lines of a part of a text.
pub(super) struct Lines<'a> {
    text: &'a dyn Text,
    /// The part of the text that was not read yet.
    left: Range<u64>,
    tick: Tick<'a>,
    /// Of what was returned before the last block was read.
    hasher: blake3::Hasher,
    block: Vec<u8>,
    /// The part of `block` that was not returned yet.
    unread: Range<usize>,
    pub(super) failed: Option<io::Error>,
}

impl<'a> Lines<'a> {
    /// `hasher` hashes what is returned, after what it has hashed before.
    pub(super) fn new(
        text: &'a dyn Text,
        part: Range<u64>,
        hasher: blake3::Hasher,
        tick: Tick<'a>,
    ) -> Self {
        Lines {
            text,
            left: part,
            tick,
            hasher,
            block: Vec::new(),
            unread: 0..0,
            failed: None,
        }
    }

    /// Where in the text the next line begins.
    pub(super) fn position(&self) -> u64 {
        self.left.start - self.unread.len() as u64
    }

    /// The hash of what was returned.
    pub(super) fn hash(&self) -> blake3::Hash {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.block[..self.unread.start]);
        hasher.finalize()
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

    /// Reads more of the text behind what is unread. False at its end.
    fn fill(&mut self) -> bool {
        let at = self.left.start;
        if self.left.is_empty() || self.failed.is_some() {
            return false;
        }
        self.hasher.update(&self.block[..self.unread.start]);
        self.block.copy_within(self.unread.clone(), 0);
        let unread = self.unread.len();
        self.unread = 0..unread;
        // A line longer than a block lets it grow by half.
        let wanted = BLOCK_BYTES.max(unread / 2) as u64;
        let wanted = wanted.min(self.left.end - at) as usize;
        if self.block.len() < unread + wanted {
            self.block.resize(unread + wanted, 0);
        }
        let new = &mut self.block[unread..unread + wanted];
        if let Err(error) = self.text.read_at(new, at) {
            self.failed = Some(error);
            return false;
        }
        self.left.start += wanted as u64;
        self.unread.end += wanted;
        (self.tick)(wanted as u64)
    }
}
