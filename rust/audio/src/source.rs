//! The bytes of a file, hashed while they are read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use blake3::Hasher;

/// Bytes that are read at a time: they stay in the second-level cache until they
/// are hashed and decoded. The first read is of the smallest window, and
/// each that follows without a gap is twice as long as the last one: a header
/// costs little, and so does a system call for each window of a long file.
const WINDOW_BYTES: u64 = 1 << 18;
const FIRST_WINDOW_BYTES: u64 = 4 << 10;
/// In a file that is read from front to back, the system is told to have so many
/// bytes ready, so that the thread that decodes does not wait for the disk.
const AHEAD_BYTES: u64 = 8 << 20;

/// The bytes of an open file, which are read in any order and hashed.
///
/// What is read from the front to the back is hashed on the way. So
/// [`digest`](Self::digest) reads only the bytes behind a gap again, and those
/// that nobody asked for.
#[derive(Debug)]
pub struct ByteSource {
    file: Option<File>,
    size: u64,
    /// The bytes that were read last, and where in the file they are.
    window: Vec<u8>,
    start: u64,
    /// Length of the next window.
    length: u64,
    /// Where the bytes end that the system was told to have ready.
    asked: u64,
    /// Hash of the bytes before `hashed`.
    hasher: Hasher,
    hashed: u64,
    bytes_read: u64,
}

impl ByteSource {
    /// Opens a file. Its size is taken now: bytes that are appended later are
    /// not read.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Looked at first, because opening a pipe waits for a writer.
        let found = path.metadata()?;
        if found.is_dir() {
            // Reading gives the system's own error.
            File::open(path)?.read_exact(&mut [0])?;
        }
        if !found.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let file = File::open(path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            file: Some(file),
            window: Vec::new(),
            start: 0,
            length: FIRST_WINDOW_BYTES,
            asked: 0,
            hasher: Hasher::new(),
            hashed: 0,
            bytes_read: 0,
        })
    }

    /// Size of the file when it was opened, bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes read from the system so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Closes the file, and frees what was read of it.
    pub fn close(&mut self) {
        self.file = None;
        self.window = Vec::new();
    }

    /// Returns up to `length` bytes at `offset`: at least one, unless `offset`
    /// is at or behind the end or `length` is 0.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read_at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        if offset >= self.size || length == 0 {
            return Ok(&[]);
        }
        if offset < self.start || offset >= self.start + self.window.len() as u64 {
            self.fill(offset)?;
        }
        let at = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let rest = self.window.get(at..).unwrap_or_default();
        Ok(&rest[..length.min(rest.len())])
    }

    /// Fills `bytes` from `offset` on, and returns how many there are: fewer only
    /// at the end of the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read_into(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            let found = self.read_at(offset.saturating_add(filled as u64), bytes.len() - filled)?;
            if found.is_empty() {
                break;
            }
            bytes[filled..filled + found.len()].copy_from_slice(found);
            filled += found.len();
        }
        Ok(filled)
    }

    /// Returns the BLAKE3 hash of the file. `is_cancelled` is asked after
    /// every window.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is shorter than when it was opened; with
    /// the kind `Interrupted` if `is_cancelled` returned true.
    pub fn digest(&mut self, is_cancelled: &dyn Fn() -> bool) -> io::Result<[u8; 32]> {
        while self.hashed < self.size {
            if is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let before = self.hashed;
            self.fill(before)?;
            if self.hashed == before {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(*self.hasher.finalize().as_bytes())
    }

    /// Makes the window begin at `offset`, or before it where that fills a gap
    /// in what is hashed.
    fn fill(&mut self, offset: u64) -> io::Result<()> {
        let is_near = self.hashed <= offset && offset - self.hashed < WINDOW_BYTES / 2;
        let start = if is_near { self.hashed } else { offset };
        self.length = match start == self.start + self.window.len() as u64 {
            true if start > 0 => WINDOW_BYTES.min(2 * self.length),
            _ => FIRST_WINDOW_BYTES,
        };
        let needed = (offset - start).saturating_add(1);
        let length = self.length.max(needed).min(self.size - start);
        self.ask_ahead(start + length);
        self.window.clear();
        self.start = start;
        let Some(mut file) = self.file.as_ref() else {
            return Err(io::Error::other("the file is closed"));
        };
        file.seek(SeekFrom::Start(start))?;
        file.take(length).read_to_end(&mut self.window)?;
        self.bytes_read += self.window.len() as u64;
        if start == self.hashed {
            self.hasher.update(&self.window);
            self.hashed += self.window.len() as u64;
        }
        Ok(())
    }

    /// Lets the system read ahead of `end`, in a file that is read in long windows.
    fn ask_ahead(&mut self, end: u64) {
        if self.length < WINDOW_BYTES || end + AHEAD_BYTES / 2 <= self.asked {
            return;
        }
        #[cfg(target_os = "linux")]
        if let (Some(file), Some(length)) = (&self.file, std::num::NonZeroU64::new(AHEAD_BYTES)) {
            // Only a hint, so an error does not matter.
            let _ = rustix::fs::fadvise(file, end, Some(length), rustix::fs::Advice::WillNeed);
        }
        self.asked = end + AHEAD_BYTES;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{ByteSource, WINDOW_BYTES};

    fn written(length: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..length).map(|index| (index * 7 / 3) as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn any_order_gives_the_bytes_and_the_hash_of_the_file() {
        for length in [0, 1, 1000, WINDOW_BYTES as usize, 5_000_000] {
            let (file, bytes) = written(length);
            let mut source = ByteSource::open(file.path()).unwrap();
            for offset in [
                0,
                length / 2,
                10,
                length.saturating_sub(3),
                length,
                length + 5,
            ] {
                let found = source.read_at(offset as u64, 100).unwrap();
                let expected = bytes.get(offset..).unwrap_or_default();
                assert_eq!(found, &expected[..found.len()]);
                assert_eq!(found.is_empty(), expected.is_empty());
            }
            let hash = source.digest(&|| false).unwrap();
            assert_eq!(&hash, blake3::hash(&bytes).as_bytes());
        }
    }

    #[test]
    fn a_file_read_from_front_to_back_is_read_once() {
        let (file, bytes) = written(3_500_000);
        let mut source = ByteSource::open(file.path()).unwrap();
        let mut offset = 0;
        while offset < bytes.len() {
            offset += source.read_at(offset as u64, 8192).unwrap().len();
        }
        source.digest(&|| false).unwrap();
        assert_eq!(source.bytes_read(), bytes.len() as u64);
    }

    #[test]
    fn the_first_bytes_of_a_long_file_cost_little() {
        let (file, _) = written(3_500_000);
        let mut source = ByteSource::open(file.path()).unwrap();
        for offset in [0, 44, 3_499_000, 100] {
            source.read_at(offset, 100).unwrap();
        }
        assert!(source.bytes_read() <= 3 * 4096);
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        assert!(ByteSource::open(std::path::Path::new("/dev/null")).is_err());
        assert!(ByteSource::open(&std::env::temp_dir()).is_err());
    }
}
