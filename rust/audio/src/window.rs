//! Access to the bytes of a file for parsers: any range, each byte read once if
//! the ranges move forward.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ByteSource;

/// Bytes that are fetched at a time, at least.
const FETCH_BYTES: usize = 1 << 16;

/// Where the bytes of a file come from.
pub trait Input: Send {
    /// Number of bytes.
    fn size(&self) -> u64;

    /// Appends up to `length` bytes at `offset`; none only at the end.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn append(&mut self, offset: u64, length: usize, to: &mut Vec<u8>) -> io::Result<()>;
}

impl Input for Arc<Mutex<ByteSource>> {
    fn size(&self) -> u64 {
        self.lock().unwrap_or_else(PoisonError::into_inner).size()
    }

    fn append(&mut self, offset: u64, length: usize, to: &mut Vec<u8>) -> io::Result<()> {
        let mut source = self.lock().unwrap_or_else(PoisonError::into_inner);
        to.extend_from_slice(source.read_at(offset, length)?);
        Ok(())
    }
}

impl Input for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn append(&mut self, offset: u64, length: usize, to: &mut Vec<u8>) -> io::Result<()> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..));
        let rest = rest.unwrap_or_default();
        to.extend_from_slice(&rest[..length.min(rest.len())]);
        Ok(())
    }
}

/// The bytes around the current position of a parser.
pub(crate) struct Window {
    input: Box<dyn Input>,
    size: u64,
    bytes: Vec<u8>,
    start: u64,
}

impl Window {
    pub(crate) fn new(input: Box<dyn Input>) -> Self {
        Self {
            size: input.size(),
            input,
            bytes: Vec::new(),
            start: 0,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns `length` bytes at `offset`, or fewer at the end of the file.
    pub(crate) fn get(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let at = match offset.checked_sub(self.start).map(usize::try_from) {
            Some(Ok(at)) if at <= self.bytes.len() => at,
            _ => {
                self.bytes.clear();
                self.start = offset;
                0
            }
        };
        if self.bytes.len() - at >= length {
            return Ok(&self.bytes[at..at + length]);
        }
        self.bytes.drain(..at);
        self.start = offset;
        while self.bytes.len() < length {
            let before = self.bytes.len();
            let missing = (length - before).max(FETCH_BYTES);
            self.input
                .append(offset + before as u64, missing, &mut self.bytes)?;
            if self.bytes.len() == before {
                // The file is shorter than it was when it was opened.
                break;
            }
        }
        Ok(&self.bytes[..length.min(self.bytes.len())])
    }

    /// Returns exactly `N` bytes at `offset`, or None behind the end.
    pub(crate) fn array<const N: usize>(&mut self, offset: u64) -> io::Result<Option<[u8; N]>> {
        Ok(self.get(offset, N)?.try_into().ok())
    }

    pub(crate) fn starts_with(&mut self, offset: u64, magic: &[u8]) -> io::Result<bool> {
        Ok(self.get(offset, magic.len())? == magic)
    }
}
