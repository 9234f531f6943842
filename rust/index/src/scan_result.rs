//! The result of a scan.

use std::sync::Arc;

use crate::files::{File, Files};
use crate::hash::Hash;
use crate::paths::Paths;
use crate::skip_reason::SkipReason;
use crate::stat::StatKey;

/// A path, as bytes relative to the dataset's root.
pub type PathBytes = Box<[u8]>;

/// A content whose features are not computed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Todo<'a> {
    /// The first file with this content.
    pub path: &'a [u8],
    /// Hash of the content; `None` if the file was not hashed, because no other file
    /// has its size.
    pub hash: Option<Hash>,
    /// Size, times and inode number.
    pub key: StatKey,
    /// Whether the file changed so shortly before the scan that a later change might
    /// leave the same times.
    pub racy: bool,
}

/// Number of files by what happened to them. A renamed file counts neither as
/// added nor as removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Known files with the same content as before.
    pub unchanged: u64,
    /// Unchanged files whose recorded size, times or inode number changed.
    pub refreshed: u64,
    /// New files that are not skipped themselves.
    pub added: u64,
    /// Known files that have another content or are now skipped.
    pub changed: u64,
    /// New files with the content of a removed file.
    pub renamed: u64,
    /// Known files that no longer exist.
    pub removed: u64,
    /// Files that are skipped, themselves or because of their content.
    pub skipped: u64,
}

/// The difference between a manifest and a folder. Lists are sorted by path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// The new table of files, for [`Manifest::apply`](crate::Manifest::apply).
    pub(crate) files: Arc<Files>,
    /// Whether only a list of files was looked at.
    pub(crate) is_partial: bool,
    /// Number of files by what happened to them.
    pub counts: Counts,
    /// New files.
    pub added: Paths,
    /// Known files with another content, or newly skipped.
    pub changed: Paths,
    /// Old and new path of each renamed file.
    pub renamed: (Paths, Paths),
    /// Known files that no longer exist.
    pub removed: Paths,
    /// The first file of each content that is not in the manifest.
    pub(crate) todo: Vec<u32>,
    /// Skipped files, with the reasons.
    pub skipped: Vec<(PathBytes, SkipReason)>,
    /// Paths that could not be examined, with the reasons. Known files at and
    /// below such a path stay in the table.
    pub faults: Vec<(PathBytes, SkipReason)>,
    /// Folders that distill wrote, and that are not part of the dataset.
    pub left_out: Vec<PathBytes>,
    /// Number of files by extension, of those in [`Options::unread`](crate::Options)
    /// that were found; sorted. Empty for a list of files.
    pub unread: Vec<(String, u64)>,
    /// Number of existing files, usable or not; of a list of files, those listed.
    pub n_files: u64,
    /// Total size of these files in bytes.
    pub total_bytes: u64,
}

impl Scan {
    /// The entry of a file that was scanned.
    pub fn file(&self, path: &[u8]) -> Option<File<'_>> {
        self.files.find(path).map(|index| self.files.get(index))
    }

    /// Number of contents that are not in the manifest.
    pub fn n_todo(&self) -> usize {
        self.todo.len()
    }

    /// One of the contents that are not in the manifest; they are in the order of their
    /// paths. `None` if there are not so many.
    pub fn todo_at(&self, index: usize) -> Option<Todo<'_>> {
        let file = self.files.get(*self.todo.get(index)? as usize);
        Some(Todo {
            path: file.path,
            hash: file.content,
            key: file.key,
            racy: file.racy,
        })
    }

    /// Contents that are not in the manifest, each listed once.
    pub fn todo(&self) -> impl Iterator<Item = Todo<'_>> {
        (0..self.n_todo()).filter_map(|index| self.todo_at(index))
    }
}
