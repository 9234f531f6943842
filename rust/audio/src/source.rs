//! The bytes of a file, hashed while they are read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use blake3::Hasher;

/// Bytes that are read at a time. The first read is of the smallest window, and
/// each that follows without a gap is twice as long as the last one: a header
/// costs little, and so does a system call for each window of a long file.
const WINDOW_BYTES: u64 = 1 << 20;
const FIRST_WINDOW_BYTES: u64 = 4 << 10;
/// In a file that is read from front to back, the system is told to have so many
/// bytes ready, so that the thread that decodes does not wait for the disk.
const AHEAD_BYTES: u64 = 8 << 20;
/// Short windows are kept after others were read: headers and tables are visited
/// again, and those behind the sound are hashed when its end is reached.
const KEPT_WINDOW_BYTES: usize = 512 << 10;
const KEPT_BYTES: usize = 2 << 20;
/// Requests for as much are requests for sound, and need no window.
const DIRECT_BYTES: usize = 128 << 10;

/// The bytes of an open file, which are read in any order and hashed.
///
/// What is read from the front to the back is hashed on the way. So
/// [`digest`](Self::digest) reads only the bytes behind a gap again, and those
/// that nobody asked for.
#[derive(Debug)]
pub struct ByteSource {
    file: Option<File>,
    size: u64,
    /// The bytes that were read last.
    window: Segment,
    /// Short windows before, oldest first.
    kept: VecDeque<Segment>,
    /// Length of the next window.
    length: u64,
    /// Where the bytes end that the system was told to have ready.
    asked: u64,
    /// Hash of the bytes before `hashed`.
    hasher: Hasher,
    hashed: u64,
    bytes_read: u64,
}

/// Some bytes, and where in the file they are.
#[derive(Debug, Default)]
struct Segment {
    start: u64,
    bytes: Vec<u8>,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The bytes from `offset` on; None if it is outside.
    fn from(&self, offset: u64) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(at..).filter(|bytes| !bytes.is_empty())
    }
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
            window: Segment::default(),
            kept: VecDeque::new(),
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
        self.window = Segment::default();
        self.kept.clear();
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
        if self.held(offset).is_none() {
            self.fill(offset)?;
        }
        let rest = self.held(offset).unwrap_or_default();
        Ok(&rest[..length.min(rest.len())])
    }

    /// Fills `to` with the bytes at `offset`, and returns how many there are: less than wanted only at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn read_into(&mut self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < to.len() {
            let at = offset.saturating_add(done as u64);
            let rest = &mut to[done..];
            let is_sound = rest.len() >= DIRECT_BYTES && at < self.size;
            if is_sound {
                self.catch_up(at)?;
            }
            let count = if is_sound && at == self.hashed && self.held(at).is_none() {
                self.read_directly(at, rest)?
            } else {
                let found = self.read_at(at, rest.len())?;
                rest[..found.len()].copy_from_slice(found);
                found.len()
            };
            if count == 0 {
                break;
            }
            done += count;
        }
        Ok(done)
    }

    /// Reads and hashes what is before `offset`, for those who from there on
    /// read to the end. Without it, they would read behind a gap, and all of it
    /// would be read again for the hash.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn catch_up(&mut self, offset: u64) -> io::Result<()> {
        while self.hashed < offset.min(self.size) {
            let before = self.hashed;
            self.fill(before)?;
            if self.hashed == before {
                break;
            }
        }
        Ok(())
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
        let goes_on = start > 0 && (start == self.window.end() || start == self.hashed);
        self.length = match goes_on {
            true => WINDOW_BYTES.min(2 * self.length),
            false => FIRST_WINDOW_BYTES,
        };
        let needed = (offset - start).saturating_add(1);
        let length = self.length.max(needed).min(self.free_bytes(start));
        if self.length == WINDOW_BYTES {
            self.ask_ahead(start + length);
        }
        let mut bytes = self.empty_buffer();
        let mut file = self.seek(start)?;
        (&mut file).take(length).read_to_end(&mut bytes)?;
        self.bytes_read += bytes.len() as u64;
        self.window = Segment { start, bytes };
        self.hash_held();
        Ok(())
    }

    /// Reads what is to be hashed next to where it is wanted.
    fn read_directly(&mut self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let free = usize::try_from(self.free_bytes(offset)).unwrap_or(usize::MAX);
        let length = to.len().min(free);
        self.ask_ahead(offset + length as u64);
        let count = self.seek(offset)?.read(&mut to[..length])?;
        self.bytes_read += count as u64;
        self.hasher.update(&to[..count]);
        self.hashed += count as u64;
        self.hash_held();
        Ok(count)
    }

    fn seek(&self, offset: u64) -> io::Result<&File> {
        let Some(mut file) = self.file.as_ref() else {
            return Err(io::Error::other("the file is closed"));
        };
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }

    /// The bytes from `offset` on that need not be read.
    fn held(&self, offset: u64) -> Option<&[u8]> {
        let kept = || self.kept.iter().find_map(|kept| kept.from(offset));
        self.window.from(offset).or_else(kept)
    }

    /// Number of bytes from `offset` on that are not kept.
    fn free_bytes(&self, offset: u64) -> u64 {
        let starts = self.kept.iter().map(|kept| kept.start);
        let next = starts.filter(|&start| start > offset).min();
        next.unwrap_or(self.size) - offset
    }

    /// Hashes what follows, as far as it need not be read.
    fn hash_held(&mut self) {
        loop {
            let kept = || self.kept.iter().find_map(|kept| kept.from(self.hashed));
            let Some(bytes) = self.window.from(self.hashed).or_else(kept) else {
                return;
            };
            self.hasher.update(bytes);
            self.hashed += bytes.len() as u64;
        }
    }

    /// Keeps the window if it is short, and returns a buffer for the next one.
    fn empty_buffer(&mut self) -> Vec<u8> {
        let mut last = std::mem::take(&mut self.window);
        if last.bytes.len() <= KEPT_WINDOW_BYTES && !last.bytes.is_empty() {
            self.kept.push_back(last);
            last = Segment::default();
        }
        while self.kept.iter().map(|kept| kept.bytes.len()).sum::<usize>() > KEPT_BYTES {
            last = self.kept.pop_front().unwrap_or_default();
        }
        last.bytes.clear();
        last.bytes
    }

    /// Lets the system read ahead of `end`, in a file of which much is read.
    fn ask_ahead(&mut self, end: u64) {
        if end + AHEAD_BYTES / 2 <= self.asked {
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
    fn headers_and_tables_around_the_sound_are_read_once() {
        let (file, bytes) = written(3_500_000);
        let mut source = ByteSource::open(file.path()).unwrap();
        for offset in [0, 3_400_000, 100, 3_450_000, 3_400_000, 0] {
            source.read_at(offset, 100).unwrap();
        }
        let mut sound = vec![0; 3_000_000];
        assert_eq!(source.read_into(1000, &mut sound).unwrap(), sound.len());
        assert_eq!(sound, bytes[1000..3_001_000]);
        let hash = source.digest(&|| false).unwrap();
        assert_eq!(&hash, blake3::hash(&bytes).as_bytes());
        assert_eq!(source.bytes_read(), bytes.len() as u64);
    }

    #[test]
    fn sound_behind_a_long_tag_is_read_once() {
        for is_direct in [false, true] {
            let (file, bytes) = written(9_000_000);
            let mut source = ByteSource::open(file.path()).unwrap();
            source.read_at(0, 10).unwrap();
            source.read_at(5_000_000, 10).unwrap();
            assert!(source.bytes_read() <= 2 * 4096);
            let mut sound = vec![0; 4_000_000];
            if is_direct {
                assert_eq!(source.read_into(5_000_000, &mut sound).unwrap(), 4_000_000);
                assert_eq!(sound, bytes[5_000_000..]);
            } else {
                source.catch_up(5_000_000).unwrap();
            }
            let hash = source.digest(&|| false).unwrap();
            assert_eq!(&hash, blake3::hash(&bytes).as_bytes());
            assert_eq!(source.bytes_read(), bytes.len() as u64);
        }
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
