//! The first part of a copy, and where copies are.

use std::path::{Path, PathBuf};

use super::super::sealed::TextId;

/// The start of a copy. The number is the version of its format: one of another version is not read.
pub(super) const MAGIC: [u8; 16] = *b"distill-tables1\n";
pub(super) const HEAD_BYTES: usize = 16 + 8 + 32 + 4 * 8;
pub(super) const CHECKSUM_BYTES: usize = 32;
/// Columns are read and written in blocks, which stay in the processor's cache.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// Bytes of a content, and of a file without its path.
pub(super) const CONTENT_BYTES: u64 = 32 + 16 + 40;
pub(super) const FILE_BYTES: u64 = 4 + 32 + 1;

/// The path of the copy of a JSON file.
pub(super) fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("bin")
}

/// The first bytes of a copy.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) text: TextId,
    /// Bytes of the rare records.
    pub(super) rare: u64,
    pub(super) contents: u64,
    pub(super) files: u64,
    /// Bytes of all paths.
    pub(super) paths: u64,
}

impl Head {
    pub(super) fn to_bytes(self) -> [u8; HEAD_BYTES] {
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
    pub(super) fn from_bytes(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
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
    pub(super) fn length(&self, bytes_of_content: u64) -> Option<u64> {
        let contents = self.contents.checked_mul(CONTENT_BYTES)?;
        let files = self.files.checked_mul(FILE_BYTES + bytes_of_content)?;
        let around = (HEAD_BYTES + CHECKSUM_BYTES) as u64;
        let parts = [self.rare, contents, files, self.paths];
        parts.into_iter().try_fold(around, u64::checked_add)
    }
}
