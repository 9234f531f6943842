//! What a scan found out.

use std::sync::Arc;

use crate::hash::Hash;
use crate::manifest::FileEntry;

/// A path, as bytes relative to the dataset's root.
pub type PathBytes = Box<[u8]>;

/// A content whose features are still to be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Todo {
    /// The first file that has it.
    pub path: PathBytes,
    /// The content.
    pub hash: Hash,
    /// Its size in bytes.
    pub size: u64,
}

/// How many files fared how. A renamed file is neither added nor removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Known files with the content they had.
    pub unchanged: u64,
    /// Those among the unchanged whose recorded stamps are others now.
    pub refreshed: u64,
    /// New files that are not skipped by themselves.
    pub added: u64,
    /// Known files with other content, or newly skipped.
    pub changed: u64,
    /// New files with the content of a file that is gone.
    pub renamed: u64,
    /// Known files that are gone.
    pub removed: u64,
    /// Files that are skipped, by themselves or for their content.
    pub skipped: u64,
}

/// The difference between a manifest and a folder. Lists are in path order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// The files as they are now, for [`Manifest::apply`](crate::Manifest::apply).
    pub(crate) files: Arc<Vec<FileEntry>>,
    /// How many files fared how.
    pub counts: Counts,
    /// New files.
    pub added: Vec<PathBytes>,
    /// Files with other content.
    pub changed: Vec<PathBytes>,
    /// Old and new path of each renamed file.
    pub renamed: Vec<(PathBytes, PathBytes)>,
    /// Files that are gone.
    pub removed: Vec<PathBytes>,
    /// Each content that is not in the manifest, once.
    pub todo: Vec<Todo>,
    /// Skipped files and why.
    pub skipped: Vec<(PathBytes, String)>,
    /// Paths that could not be looked at, and why. What was known at and under
    /// them is kept.
    pub faults: Vec<(PathBytes, String)>,
    /// Files that stand there, usable or not.
    pub n_files: u64,
    /// Their size.
    pub total_bytes: u64,
}
