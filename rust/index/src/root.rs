//! The root folder of a dataset, and what is at a path inside it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{fstat, open, statat, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::away::is_away;
use crate::filesystems::{precision_at, Filesystems};
use crate::path::under;
use crate::skip_reason::{self, SkipReason};
use crate::stat::{file_type, Precision, StatKey};
use crate::{Error, Result};

/// The open root folder of a dataset.
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    pub(crate) fd: OwnedFd,
    filesystems: Filesystems,
    pub(crate) follow_links: bool,
    canonical: PathBuf,
}

/// What is at a path. `linked`: it was reached through a symbolic link that may
/// be followed.
pub(crate) enum Seen {
    File {
        key: StatKey,
        linked: bool,
    },
    Folder {
        key: StatKey,
        linked: bool,
    },
    Unusable {
        key: StatKey,
        reason: &'static SkipReason,
    },
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

    /// Checks that this folder is still at its path: files of a folder that was
    /// unmounted or moved meanwhile seem to be removed.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        let opened = fstat(&self.fd).map(identity);
        match rustix::fs::stat(&self.path).map(identity) {
            Err(errno) if errno != Errno::NOENT => Err(Error::io(&self.path, errno)),
            there if there.is_ok() && there == opened => Ok(()),
            _ => Err(Error::io(&self.path, Errno::STALE)),
        }
    }

    /// The target of `path` relative to the root; `None` if it is outside.
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

    /// Examines `name` in the open folder `at`, whose path from the root is
    /// `path`. Costs one stat call, and a second one for a link.
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

    /// Examines the target of a symbolic link.
    fn look_through(
        &self,
        at: impl AsFd,
        name: impl Arg + Copy,
        path: &[u8],
        link: &Stat,
    ) -> std::result::Result<Seen, Errno> {
        let unusable = |reason| {
            let key = self.key_at(&at, name, link, OFlags::NOFOLLOW);
            Ok(Seen::Unusable { key, reason })
        };
        let target = match statat(&at, name, AtFlags::empty()) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return unusable(&skip_reason::DANGLING)
            }
            // A link out of the dataset is not followed, so its target need not be there.
            Err(errno) if is_away(errno) && !self.follow_links => {
                return unusable(&skip_reason::ESCAPES)
            }
            Err(errno) => return Err(errno),
        };
        let inside = || matches!(self.resolve_inside(path), Ok(Some(_)));
        if self.follow_links || inside() {
            return Ok(self.classify(&at, name, &target, true));
        }
        unusable(&skip_reason::ESCAPES)
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
            _ => Seen::Unusable {
                key,
                reason: &skip_reason::NOT_REGULAR,
            },
        }
    }
}
