//! Comparing a folder with a manifest.

mod collect;
mod compare;
mod options;
mod unchanged;

use std::path::Path;

use crate::file_list::look_up;
use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::root::Root;
use crate::scan_result::Scan;
use crate::stat::RacyFrom;
use crate::tree::Listing;
use crate::walk::walk;
use crate::Result;

pub use options::{Hashing, Options, Trust};

/// Compares the folder `root` with `manifest`.
///
/// Opens only files that are new, whose size, times or inode number changed, or
/// that changed too shortly before the last scan.
///
/// # Errors
///
/// If `root` cannot be read or goes away, an option is invalid, or `progress`
/// stops the scan. A file that cannot be read is reported in the result, unless
/// the error says that the disk is away: then other files may seem to be gone.
pub fn scan(
    manifest: &Manifest,
    root: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Scan> {
    let root = Root::open(root, options.follow_links)?;
    // Taken before the first stat call, so that a later write has a later time.
    let racy_from = RacyFrom::now();
    let listing = match &options.files {
        Some(files) => look_up(&root, files, progress)?,
        None => walk(
            &root,
            &options.extensions,
            &options.unread,
            &options.exclude,
            options.workers,
            progress,
        )?,
    };
    let Listing {
        found,
        faults,
        left_out,
        unread,
    } = listing;
    let comparison = compare::Comparison { options, racy_from };
    if faults.is_empty() {
        if let Some(scan) = unchanged::scan_if_unchanged(&comparison, &found, manifest) {
            root.check_in_place()?;
            return Ok(Scan {
                left_out,
                unread,
                is_partial: options.files.is_some(),
                ..scan
            });
        }
    }
    let mut drafts = comparison.drafts(found, manifest.files(), &faults);
    comparison.defer(&mut drafts, manifest.files());
    comparison.hash_suspects(&root, &mut drafts, progress)?;
    root.check_in_place()?;
    Ok(Scan {
        left_out,
        unread,
        is_partial: options.files.is_some(),
        ..collect::collect(&comparison, drafts, manifest, faults)
    })
}
