//! Access to the bytes of a file for parsers: any range, each byte read once if
//! the ranges move forward.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::tags::LyricsSearch;
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

    /// Says that from `offset` on all will be read; see [`ByteSource::catch_up`].
    ///
    /// # Errors
    ///
    /// If what is before cannot be read.
    fn catch_up(&mut self, _offset: u64) -> io::Result<()> {
        Ok(())
    }
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

    fn catch_up(&mut self, offset: u64) -> io::Result<()> {
        let mut source = self.lock().unwrap_or_else(PoisonError::into_inner);
        source.catch_up(offset)
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
    /// What is known about Lyrics3 tags.
    pub(crate) lyrics: Option<LyricsSearch>,
}

impl Window {
    pub(crate) fn new(input: Box<dyn Input>) -> Self {
        Self {
            size: input.size(),
            input,
            bytes: Vec::new(),
            start: 0,
            lyrics: None,
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

    /// Says that the sound begins at `offset`, and will be read.
    pub(crate) fn catch_up(&mut self, offset: u64) -> io::Result<()> {
        self.input.catch_up(offset)
    }

    /// Returns exactly `N` bytes at `offset`, or None behind the end.
    pub(crate) fn array<const N: usize>(&mut self, offset: u64) -> io::Result<Option<[u8; N]>> {
        Ok(self.get(offset, N)?.try_into().ok())
    }

    pub(crate) fn starts_with(&mut self, offset: u64, magic: &[u8]) -> io::Result<bool> {
        Ok(self.get(offset, magic.len())? == magic)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Input, Window};

    /// Counts what is read.
    struct Counted(Vec<u8>, std::sync::Arc<std::sync::atomic::AtomicUsize>);

    impl Input for Counted {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn append(&mut self, offset: u64, length: usize, to: &mut Vec<u8>) -> std::io::Result<()> {
            let before = to.len();
            Input::append(&mut self.0, offset, length.min(1000), to)?;
            let read = to.len() - before;
            self.1.fetch_add(read, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn any_range_is_returned_and_each_byte_read_once_on_the_way_forward() {
        let bytes: Vec<u8> = (0..300_000_u32)
            .map(|index| (index * 7 / 3) as u8)
            .collect();
        let read = std::sync::Arc::default();
        let mut window = Window::new(Box::new(Counted(
            bytes.clone(),
            std::sync::Arc::clone(&read),
        )));
        for (offset, length) in [(0, 4), (2, 100_000), (90_000, 10), (95_000, 205_000)] {
            let found = window.get(offset, length).unwrap();
            assert_eq!(found, &bytes[offset as usize..][..length]);
        }
        assert_eq!(read.load(std::sync::atomic::Ordering::Relaxed), bytes.len());
        assert_eq!(window.get(299_998, 10).unwrap(), &bytes[299_998..]);
        assert!(window.get(400_000, 10).unwrap().is_empty());
        assert_eq!(window.get(5, 3).unwrap(), &bytes[5..8]);
    }
}
