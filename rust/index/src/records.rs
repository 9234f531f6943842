//! The records of a manifest's tables of packs and contents.

use smallvec::SmallVec;

use crate::skip_reason::SkipReason;

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
    /// Which they are: number of the first chunk and number of chunks of each run, in
    /// order. Empty also where that is unknown.
    pub silent_runs: Vec<(u64, u64)>,
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
