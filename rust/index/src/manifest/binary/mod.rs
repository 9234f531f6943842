//! A copy of the tables of a JSON file in binary, beside it, which takes a fraction of the time
//! to read.
//!
//! The JSON file alone is the truth. The copy holds the length and the checksum of the text that
//! its tables are written as, and whoever reads the copy hashes that text as well, so every byte
//! of the JSON file is still checked. A copy that is missing, damaged, or of another text or
//! version is no error: the JSON is parsed instead.
//!
//! ```text
//! head      format, length and checksum of the JSON text, size of each part
//! rare      what is not in the columns, as JSON: header, packs, contents of several segments or
//!           with reasons, files with reasons
//! columns   of all contents: hash, place, sums
//!           of all files: length of the path, path, stamps, flags, hash or number of the content
//! checksum  BLAKE3 of everything before
//! ```
//!
//! Integers are little-endian. What is read is checked by the same rules as JSON, so a forged
//! copy can do no more than a forged JSON file.

mod read;
mod write;

use std::path::{Path, PathBuf};

use super::sealed::TextId;

pub(super) use read::load;

/// The start of a copy. The number is the version of its format: one of another version is not read.
const MAGIC: [u8; 16] = *b"distill-tables1\n";
const HEAD_BYTES: usize = 16 + 8 + 32 + 4 * 8;
const CHECKSUM_BYTES: usize = 32;
/// Columns are read and written in blocks, which stay in the processor's cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Bytes of a content, and of a file without its path.
const CONTENT_BYTES: u64 = 32 + 16 + 40;
const FILE_BYTES: u64 = 4 + 32 + 1;

/// The path of the copy of a JSON file.
fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("bin")
}

/// The first bytes of a copy.
#[derive(Clone, Copy)]
struct Head {
    text: TextId,
    /// Bytes of the rare records.
    rare: u64,
    contents: u64,
    files: u64,
    /// Bytes of all paths.
    paths: u64,
}

impl Head {
    fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let (magic, rest) = bytes.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        let (length, rest) = rest.split_at_mut(8);
        length.copy_from_slice(&self.text.length.to_le_bytes());
        let (hash, rest) = rest.split_at_mut(32);
        hash.copy_from_slice(self.text.hash.as_bytes());
        let sizes = [self.rare, self.contents, self.files, self.paths];
        for (place, size) in rest.chunks_exact_mut(8).zip(sizes) {
            place.copy_from_slice(&size.to_le_bytes());
        }
        bytes
    }

    /// `None` if these are not the first bytes of a copy.
    fn from_bytes(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk()?;
        let (sizes, _) = rest.as_chunks();
        let [rare, contents, files, paths] = <[[u8; 8]; 4]>::try_from(sizes).ok()?;
        Some(Head {
            text: TextId {
                length: u64::from_le_bytes(*length),
                hash: blake3::Hash::from_bytes(*hash),
            },
            rare: u64::from_le_bytes(rare),
            contents: u64::from_le_bytes(contents),
            files: u64::from_le_bytes(files),
            paths: u64::from_le_bytes(paths),
        })
    }

    /// The size of a copy with this head, in which the content of a file takes so many bytes.
    fn length(&self, bytes_of_content: u64) -> Option<u64> {
        let contents = self.contents.checked_mul(CONTENT_BYTES)?;
        let files = self.files.checked_mul(FILE_BYTES + bytes_of_content)?;
        let around = (HEAD_BYTES + CHECKSUM_BYTES) as u64;
        let parts = [self.rare, contents, files, self.paths];
        parts.into_iter().try_fold(around, u64::checked_add)
    }
}
