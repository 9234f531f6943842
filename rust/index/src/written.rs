//! Folders that distill itself writes: they are not part of a dataset.
//!
//! Such a folder holds a file with the name [`MARK`]. The runs of earlier
//! versions have none; their sounds are in `previews`, beside the files that
//! every run has.

use std::collections::HashMap;

use rustix::fs::{statat, AtFlags};

use crate::path::{join, parent};
use crate::root::Root;

/// The name of the file that marks a folder, with all that is in it.
pub(crate) const MARK: &[u8] = b".distill-output";
const RUN_FILES: [&[u8]; 2] = [b"run.json", b"config.toml"];
const PREVIEWS: &[u8] = b"previews";

/// What the names in a folder say about it, as far as they have been read.
#[derive(Default)]
pub(crate) struct Signs {
    run_files: usize,
}

impl Signs {
    pub(crate) fn note(&mut self, name: &[u8]) {
        self.run_files += usize::from(RUN_FILES.contains(&name));
    }

    /// The subfolder of `folder` that distill wrote, if all names were noted.
    pub(crate) fn previews(&self, folder: &[u8]) -> Option<Box<[u8]>> {
        (self.run_files == RUN_FILES.len()).then(|| join(folder, PREVIEWS))
    }
}

/// Whether distill wrote the folder of a listed file. Remembers each answer.
#[derive(Default)]
pub(crate) struct Written(HashMap<Box<[u8]>, bool>);

impl Written {
    /// Whether `folder`, or one above it in the dataset, is one that distill wrote.
    pub(crate) fn holds(&mut self, root: &Root, folder: &[u8]) -> bool {
        if let Some(&answer) = self.0.get(folder) {
            return answer;
        }
        let answer = exists(root, folder, MARK)
            || is_previews(root, folder)
            || !folder.is_empty() && self.holds(root, parent(folder));
        self.0.insert(folder.into(), answer);
        answer
    }
}

fn is_previews(root: &Root, folder: &[u8]) -> bool {
    let run = parent(folder);
    *folder == *join(run, PREVIEWS) && RUN_FILES.iter().all(|name| exists(root, run, name))
}

fn exists(root: &Root, folder: &[u8], name: &[u8]) -> bool {
    let path = join(folder, name);
    statat(&root.fd, &*path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
