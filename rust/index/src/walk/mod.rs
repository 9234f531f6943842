//! Finding every audio file below the dataset's root, without opening any.

mod parallel;
mod walker;

use std::cell::Cell;
use std::path::PathBuf;

use crate::progress::{Progress, Stage};
use crate::root::Root;
use crate::tree::Listing;
use crate::Result;
use parallel::walk_in_threads;
use walker::{Rules, Walker};

/// Walks `root` for files with one of the `extensions` (lower case, no dot), in
/// at most `workers` threads, and counts those with one of `unread`. Hidden files
/// and folders, and the folders of `exclude`, are left out; so are folders that
/// distill wrote, which are listed.
pub(crate) fn walk(
    root: &Root,
    extensions: &[String],
    unread: &[String],
    exclude: &[PathBuf],
    workers: usize,
    progress: &dyn Progress,
) -> Result<Listing> {
    let rules = Rules::new(root, extensions, unread, exclude);
    let found = Cell::new(0);
    let tick = |new| {
        found.set(found.get() + new);
        progress.report(Stage::Scan, found.get(), 0);
        !progress.should_stop()
    };
    let mut walker = Walker::new(&rules, &tick);
    walker.visit_root()?;
    // Not with followed links: which of two paths to the same folder is used
    // must not depend on the order in which threads run.
    if workers > 1 && walker.pending.len() > 1 && !root.follow_links {
        let pending = std::mem::take(&mut walker.pending);
        for tree in walk_in_threads(&rules, pending, workers, &tick)? {
            walker.tree.add(tree);
        }
    }
    walker.visit_all()?;
    walker.tree.sorted(root, unread)
}
