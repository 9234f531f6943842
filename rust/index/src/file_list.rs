//! Looking up a list of files instead of walking the folder.

use rustix::io::Errno;

use crate::path::{check_relative, parent};
use crate::progress::{Progress, Stage};
use crate::root::{Root, Seen};
use crate::skip_reason::{self, SkipReason};
use crate::tree::{Fault, Listing, Tree};
use crate::written::Written;
use crate::{Error, Result};

/// Progress is reported once for this many files.
const POLL_FILES: usize = 512;

/// Looks up each of `files`. Hidden files and any extension are allowed,
/// because the caller requested these very files. Files in folders that distill
/// wrote are unusable.
pub(crate) fn look_up(root: &Root, files: &[Vec<u8>], progress: &dyn Progress) -> Result<Listing> {
    let mut files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    files.sort_unstable();
    files.dedup();
    let mut tree = Tree::default();
    let mut folder = FolderCheck::default();
    let mut written = Written::default();
    for (index, path) in files.into_iter().enumerate() {
        check_relative(path).map_err(|rule| {
            Error::Invalid(format!("files: {:?} {rule}", String::from_utf8_lossy(path)))
        })?;
        if index % POLL_FILES == 0 {
            progress.report(Stage::Scan, index as u64, 0);
            if progress.should_stop() {
                return Err(Error::Interrupted);
            }
        }
        let is_inside = root.follow_links || folder.is_inside(root, parent(path));
        let fault = match is_inside {
            false => Some(&skip_reason::ESCAPES),
            true if written.holds(root, parent(path)) => Some(&skip_reason::WRITTEN),
            true => None,
        };
        look_up_file(root, path, fault, &mut tree);
        if tree.is_away() {
            break;
        }
    }
    tree.sorted(root, &[])
}

/// `fault`: why no file in this folder can be used.
fn look_up_file(root: &Root, path: &[u8], fault: Option<&'static SkipReason>, tree: &mut Tree) {
    match root.look(&root.fd, path, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => tree.faults.push(Fault {
            path: path.into(),
            reason: skip_reason::MISSING.clone(),
            hides: false,
        }),
        Err(errno) => tree.fault(path.into(), errno),
        Ok(Seen::File { key, linked }) => match fault {
            Some(reason) => tree.unusable(path, key, reason),
            None => tree.file(path, key, linked),
        },
        Ok(Seen::Folder { key, .. }) => {
            tree.unusable(path, key, &skip_reason::NOT_REGULAR);
        }
        Ok(Seen::Unusable { key, reason }) => tree.unusable(path, key, reason),
    }
}

/// Whether a folder is inside the root. Remembers the last answer: files are
/// sorted, and resolving a path costs several times as much as a stat call.
#[derive(Default)]
struct FolderCheck {
    last: Option<(Vec<u8>, bool)>,
}

impl FolderCheck {
    fn is_inside(&mut self, root: &Root, folder: &[u8]) -> bool {
        match &self.last {
            _ if folder.is_empty() => true,
            Some((last, answer)) if last == folder => *answer,
            _ => {
                // A folder that cannot be resolved counts as inside: the stat
                // call of the file then reports the error.
                let answer = !matches!(root.resolve_inside(folder), Ok(None));
                self.last = Some((folder.to_vec(), answer));
                answer
            }
        }
    }
}
