//! The dataset's root, and what stands at a path inside it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{open, statat, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::filesystems::{precision_at, Filesystems};
use crate::path::under;
use crate::reason;
use crate::stat::{file_type, Precision, StatKey};
use crate::{Error, Result};

/// An open dataset.
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    pub(crate) fd: OwnedFd,
    filesystems: Filesystems,
    pub(crate) follow_links: bool,
    canonical: PathBuf,
}

/// A file as the walk met it. Nothing was opened.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: Box<[u8]>,
    pub(crate) key: StatKey,
    /// It is a symbolic link that may be followed.
    pub(crate) linked: bool,
    /// Why it cannot be used, whatever it holds.
    pub(crate) odd: Option<&'static str>,
}

/// A path that could not be looked at.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) path: Box<[u8]>,
    pub(crate) reason: String,
    /// What is known at and under the path may still be there.
    pub(crate) hides: bool,
}

/// All that a walk, or a list, came upon.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// How many files were found.
    pub(crate) files: u64,
    /// Those of the folders that were read, each folder sorted.
    folders: Vec<Vec<Found>>,
    /// Those of the folder that is being read.
    found: Vec<Found>,
    pub(crate) faults: Vec<Fault>,
}

/// What stands at a path.
pub(crate) enum Seen {
    File { key: StatKey, linked: bool },
    Folder { key: StatKey, linked: bool },
    Odd { key: StatKey, reason: &'static str },
}

impl Root {
    pub(crate) fn open(path: &Path, follow_links: bool) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(|e| Error::io(path, e))?;
        let canonical = path.canonicalize().map_err(|e| Error::io(path, e))?;
        Ok(Root {
            path: path.to_path_buf(),
            filesystems: Filesystems::below(&fd).map_err(|e| Error::io(path, e))?,
            fd,
            follow_links,
            canonical,
        })
    }

    /// Where `path` leads, relative to the root, if that is inside the root.
    pub(crate) fn resolve_inside(&self, path: &[u8]) -> io::Result<Option<PathBuf>> {
        let target = under(&self.canonical, path).canonicalize()?;
        let inside = target.strip_prefix(&self.canonical);
        Ok(inside.ok().map(Path::to_path_buf))
    }

    /// The key of an open file with this stat result.
    pub(crate) fn key(&self, file: impl AsFd, stat: &Stat) -> StatKey {
        let look_up = || Some(Precision::of(file));
        self.filesystems.precision(stat, look_up).key(stat)
    }

    /// Looks at `name` in the open folder `at`; `path` is the same thing seen
    /// from the root. One stat, and a second one for a link.
    pub(crate) fn look(
        &self,
        at: impl AsFd,
        name: impl Arg + Copy,
        path: &[u8],
    ) -> std::result::Result<Seen, Errno> {
        let stat = statat(&at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match file_type(&stat) {
            FileType::Symlink => self.look_through(at, name, path, &stat),
            _ => Ok(self.classify(at, name, &stat, false)),
        }
    }

    fn key_at(&self, at: impl AsFd, name: impl Arg, stat: &Stat, nofollow: OFlags) -> StatKey {
        let look_up = || precision_at(at, name, stat, nofollow);
        self.filesystems.precision(stat, look_up).key(stat)
    }

    fn look_through(
        &self,
        at: impl AsFd,
        name: impl Arg + Copy,
        path: &[u8],
        link: &Stat,
    ) -> std::result::Result<Seen, Errno> {
        let odd = |reason| {
            let key = self.key_at(&at, name, link, OFlags::NOFOLLOW);
            Ok(Seen::Odd { key, reason })
        };
        let target = match statat(&at, name, AtFlags::empty()) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return odd(reason::DANGLING),
            Err(errno) => return Err(errno),
        };
        let inside = || matches!(self.resolve_inside(path), Ok(Some(_)));
        if self.follow_links || inside() {
            return Ok(self.classify(&at, name, &target, true));
        }
        odd(reason::ESCAPES)
    }

    fn classify(&self, at: impl AsFd, name: impl Arg, stat: &Stat, linked: bool) -> Seen {
        let nofollow = if linked {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let key = self.key_at(at, name, stat, nofollow);
        match file_type(stat) {
            FileType::RegularFile => Seen::File { key, linked },
            FileType::Directory => Seen::Folder { key, linked },
            _ => Seen::Odd {
                key,
                reason: reason::NOT_REGULAR,
            },
        }
    }
}

impl Tree {
    pub(crate) fn file(&mut self, path: Box<[u8]>, key: StatKey, linked: bool) {
        self.push(path, key, linked, None);
    }

    pub(crate) fn odd(&mut self, path: Box<[u8]>, key: StatKey, reason: &'static str) {
        self.push(path, key, false, Some(reason));
    }

    fn push(&mut self, path: Box<[u8]>, key: StatKey, linked: bool, odd: Option<&'static str>) {
        self.files += 1;
        self.found.push(Found {
            path,
            key,
            linked,
            odd,
        });
    }

    /// Records what hinders us at `path`, unless it is just gone.
    pub(crate) fn fault(&mut self, path: Box<[u8]>, errno: Errno) {
        if errno != Errno::NOENT {
            self.faults.push(Fault {
                path,
                reason: reason::unreadable(&errno.into()),
                hides: true,
            });
        }
    }

    /// Sorts what was found since the last call, in the thread that found it.
    pub(crate) fn end_folder(&mut self) {
        self.found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        if !self.found.is_empty() {
            self.folders.push(std::mem::take(&mut self.found));
        }
    }

    pub(crate) fn add(&mut self, other: Tree) {
        self.files += other.files;
        self.folders.extend(other.folders);
        self.folders.push(other.found);
        self.faults.extend(other.faults);
    }

    /// All files and all faults, sorted by path.
    pub(crate) fn sorted(mut self) -> (Vec<Found>, Vec<Fault>) {
        self.end_folder();
        self.folders.retain(|folder| !folder.is_empty());
        self.folders.sort_by(|a, b| a[0].path.cmp(&b[0].path));
        let mut found = Vec::with_capacity(self.folders.iter().map(Vec::len).sum());
        found.extend(self.folders.into_iter().flatten());
        // In order already, but for files that stand beside folders: a stable
        // sort only looks.
        found.sort_by(|a: &Found, b| a.path.cmp(&b.path));
        // readdir may name an entry twice in a folder that changes meanwhile.
        found.dedup_by(|a, b| a.path == b.path);
        self.faults.sort_by(|a, b| a.path.cmp(&b.path));
        (found, self.faults)
    }
}
