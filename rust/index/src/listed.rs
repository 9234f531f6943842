//! A list of files in place of a walk.

use crate::entry::{Fault, Found, Root, Seen, Tree};
use crate::path::{check_relative, parent};
use crate::reason;
use crate::watch::{Stage, Watch};
use crate::{Error, Result};

/// Asks the watch this often.
const POLL_FILES: usize = 512;

/// Looks at each of `files`, whatever its extension and hidden or not: whoever
/// lists a file wants it.
pub(crate) fn look_at(
    root: &Root,
    files: &[Vec<u8>],
    watch: &dyn Watch,
) -> Result<(Vec<Found>, Vec<Fault>)> {
    let mut files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    files.sort_unstable();
    files.dedup();
    let mut tree = Tree::default();
    let mut folder = Folder::default();
    for (index, path) in files.into_iter().enumerate() {
        check_relative(path).map_err(|rule| {
            Error::Invalid(format!("files: {:?} {rule}", String::from_utf8_lossy(path)))
        })?;
        if index % POLL_FILES == 0 {
            watch.progress(Stage::Scan, index as u64, 0);
            if watch.should_stop() {
                return Err(Error::Interrupted);
            }
        }
        let is_inside = root.follow_links || folder.is_inside(root, parent(path));
        file(root, path, is_inside, &mut tree);
    }
    Ok(tree.sorted())
}

fn file(root: &Root, path: &[u8], is_inside: bool, tree: &mut Tree) {
    let missing = |path: &[u8]| Fault {
        path: path.into(),
        reason: reason::MISSING.into(),
        hides: false,
    };
    match root.look(&root.fd, path, path) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            tree.faults.push(missing(path));
        }
        Err(errno) => tree.fault(path.into(), errno),
        Ok(Seen::File { key, .. }) if !is_inside => tree.odd(path.into(), key, reason::ESCAPES),
        Ok(Seen::File { key, linked }) => tree.file(path.into(), key, linked),
        Ok(Seen::Folder { key, .. }) => tree.odd(path.into(), key, reason::NOT_REGULAR),
        Ok(Seen::Odd { key, reason }) => tree.odd(path.into(), key, reason),
    }
}

/// Remembers the last folder's answer: sorted files come folder by folder, and
/// resolving a path costs several times a stat.
#[derive(Default)]
struct Folder {
    last: Option<(Vec<u8>, bool)>,
}

impl Folder {
    fn is_inside(&mut self, root: &Root, folder: &[u8]) -> bool {
        match &self.last {
            _ if folder.is_empty() => true,
            Some((last, answer)) if last == folder => *answer,
            _ => {
                // A folder that cannot be resolved is the stat's to report.
                let answer = !matches!(root.resolve_inside(folder), Ok(None));
                self.last = Some((folder.to_vec(), answer));
                answer
            }
        }
    }
}
