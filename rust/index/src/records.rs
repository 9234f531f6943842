//! The records of a manifest's tables: packs, contents and files.

use smallvec::SmallVec;

use crate::hash::Hash;
use crate::skip_reason::SkipReason;
use crate::stat::StatKey;

/// An immutable file of cached rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// File name in the folder of packs.
    pub name: String,
    /// Number of rows.
    pub rows: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Modification time when the pack was last verified, ns since 1970.
    pub mtime_ns: i64,
    /// Change time when the pack was last verified, ns since 1970.
    pub ctime_ns: i64,
    /// 64 lower-case hexadecimal digits. The caller decides what they cover.
    pub checksum: String,
    /// Name of the backend that computed the rows.
    pub backend: String,
}

/// Consecutive rows in one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the pack in the manifest's table of packs.
    pub pack: u64,
    /// The first row in that pack.
    pub first: u64,
    /// Number of rows, at least 1.
    pub rows: u64,
}

/// What was computed from one content, whichever files have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Location of its rows, in the order of the rows.
    pub segments: SmallVec<[Segment; 1]>,
    /// Number of its chunks that were silent and have no row.
    pub silent: u64,
    /// Count of values, then sum and sum of squares of each of two channels.
    pub sums: [f64; 5],
    /// Why the content cannot be used, if so.
    pub skipped: Option<SkipReason>,
    /// Why only a part of the content could be decoded, if so. Its rows are those
    /// of that part.
    pub partial: Option<SkipReason>,
}

impl Content {
    /// Number of rows in all segments.
    pub fn rows(&self) -> u64 {
        let rows = self.segments.iter().map(|segment| segment.rows);
        rows.fold(0, u64::saturating_add)
    }
}

/// A source file at the time of the last scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the dataset's root.
    pub path: Box<[u8]>,
    /// Size, times and inode number.
    pub key: StatKey,
    /// The file changed so shortly before the scan that a later change might
    /// leave the same times. It is hashed again at the next scan.
    pub racy: bool,
    /// Hash of the content; `None` if the file itself is skipped, or not hashed
    /// yet.
    pub content: Option<Hash>,
    /// Why the file itself is skipped, if so.
    pub skipped: Option<SkipReason>,
    /// Whether the dataset consists of this file among others. False if the last
    /// scan was limited to a list of files without it: its rows are kept, and not
    /// served.
    pub selected: bool,
}

impl FileEntry {
    /// Whether the file is used, and was not hashed yet. Such entries are not
    /// saved.
    pub(crate) fn is_pending(&self) -> bool {
        self.content.is_none() && self.skipped.is_none()
    }
}

/// Adds files to a table sorted by path. Of a file that both have, the new entry
/// counts if the old one is pending, or of another state of the file. Returns whether
/// the table changed.
pub(crate) fn merge_files(files: &mut Vec<FileEntry>, others: &[FileEntry]) -> bool {
    let sorted = files.len();
    let mut has_changed = false;
    for other in others {
        match files[..sorted].binary_search_by(|file| file.path.cmp(&other.path)) {
            Ok(index) if files[index].is_pending() || files[index].key != other.key => {
                has_changed = true;
                files[index] = FileEntry {
                    selected: files[index].selected,
                    ..other.clone()
                };
            }
            Ok(_) => {}
            Err(_) => files.push(other.clone()),
        }
    }
    if files.len() > sorted {
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        has_changed = true;
    }
    has_changed
}

/// Records the hash of a file that is pending, in a table sorted by path. Returns
/// whether there is one.
pub(crate) fn set_hash(files: &mut [FileEntry], path: &[u8], hash: Hash) -> bool {
    let at = files.binary_search_by(|file| (*file.path).cmp(path));
    let file = at.ok().map(|index| &mut files[index]);
    match file.filter(|file| file.is_pending()) {
        Some(file) => {
            file.content = Some(hash);
            true
        }
        None => false,
    }
}
