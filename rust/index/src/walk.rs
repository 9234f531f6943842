//! Every audio file under the dataset's root, by name and stamps alone.

use std::collections::HashSet;
use std::path::PathBuf;

use rustix::fd::OwnedFd;
use rustix::fs::{fstat, openat, Dir, DirEntry, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::entry::{Root, Seen, Tree};
use crate::path::join;
use crate::reason;
use crate::watch::{Stage, Watch};
use crate::{Error, Result};

/// Asks the watch this often inside one folder: about every millisecond.
const POLL_ENTRIES: usize = 512;

/// A folder's device and inode: its identity on this machine, now.
type Identity = (u64, u64);

/// Walks `root` for files with one of the `extensions` (lower case, no dot).
/// Hidden files and folders, and the `exclude`d folders, are left out.
pub(crate) fn walk(
    root: &Root,
    extensions: &[String],
    exclude: &[PathBuf],
    watch: &dyn Watch,
) -> Result<Tree> {
    let mut walker = Walker {
        root,
        extensions,
        excluded: exclude.iter().filter_map(identity_at).collect(),
        watch,
        tree: Tree::default(),
        pending: Vec::new(),
        linked: Vec::new(),
        seen: HashSet::new(),
        entries: 0,
    };
    walker.run()?;
    Ok(walker.tree.sorted())
}

struct Walker<'a> {
    root: &'a Root,
    extensions: &'a [String],
    excluded: HashSet<Identity>,
    watch: &'a dyn Watch,
    tree: Tree,
    /// Folders to visit. A list and no recursion: depth is the user's to choose.
    pending: Vec<Box<[u8]>>,
    /// Links to folders, to visit when no real folder is left.
    linked: Vec<Box<[u8]>>,
    /// Folders already visited, kept only if links are followed.
    seen: HashSet<Identity>,
    entries: usize,
}

impl Walker<'_> {
    fn run(&mut self) -> Result<()> {
        let root_error = |errno: Errno| Error::io(&self.root.path, errno);
        let dir = self.open(b".", false).map_err(root_error)?;
        if let Some(dir) = dir {
            let read = self.folder(dir, b"")?;
            read.map_err(|errno| Error::io(&self.root.path, errno))?;
        }
        self.drain()?;
        // Real folders first and links in order, so that it does not depend on
        // the order of readdir which of two ways to a folder is taken.
        while !self.linked.is_empty() {
            self.linked.sort_unstable_by(|a, b| b.cmp(a));
            if let Some(path) = self.linked.pop() {
                self.visit(path, true)?;
                self.drain()?;
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        while let Some(path) = self.pending.pop() {
            self.visit(path, false)?;
        }
        Ok(())
    }

    /// Visits a folder below the root; what goes wrong is a fault of its own.
    fn visit(&mut self, path: Box<[u8]>, linked: bool) -> Result<()> {
        let read = match self.open(&path, linked) {
            Ok(Some(dir)) => self.folder(dir, &path)?,
            Ok(None) => Ok(()),
            Err(errno) => Err(errno),
        };
        if let Err(errno) = read {
            self.tree.fault(path, errno);
        }
        Ok(())
    }

    /// Opens a folder, unless it is excluded or was visited before.
    fn open(&mut self, path: &[u8], linked: bool) -> std::result::Result<Option<Dir>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let nofollow = if linked {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let fd = openat(&self.root.fd, path, flags | nofollow, Mode::empty())?;
        if !self.is_wanted(&fd)? {
            return Ok(None);
        }
        Dir::new(fd).map(Some)
    }

    fn is_wanted(&mut self, fd: &OwnedFd) -> std::result::Result<bool, Errno> {
        if self.excluded.is_empty() && !self.root.follow_links {
            return Ok(true); // spares a stat a folder
        }
        let identity = identity(&fstat(fd)?);
        let is_new = !self.root.follow_links || self.seen.insert(identity);
        Ok(is_new && !self.excluded.contains(&identity))
    }

    /// Reads a folder. The outer error ends the walk, the inner one is the
    /// folder's.
    fn folder(&mut self, mut dir: Dir, path: &[u8]) -> Result<std::result::Result<(), Errno>> {
        self.poll()?;
        while let Some(entry) = dir.read() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return Ok(Err(errno)),
            };
            self.entries += 1;
            if self.entries % POLL_ENTRIES == 0 {
                self.poll()?;
            }
            self.entry(&dir, &entry, path);
        }
        Ok(Ok(()))
    }

    fn poll(&self) -> Result<()> {
        let found = self.tree.found.len() as u64;
        self.watch.progress(Stage::Scan, found, 0);
        match self.watch.should_stop() {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }

    fn entry(&mut self, dir: &Dir, entry: &DirEntry, folder: &[u8]) {
        let name = entry.file_name().to_bytes();
        if name.starts_with(b".") {
            return;
        }
        let is_audio = has_extension(name, self.extensions);
        let is_wanted = match entry.file_type() {
            FileType::Directory => return self.pending.push(join(folder, name)),
            // Some filesystems do not tell the type: only stat will.
            FileType::Unknown => true,
            FileType::Symlink => is_audio || self.root.follow_links,
            _ => is_audio,
        };
        if !is_wanted {
            return;
        }
        let path = join(folder, name);
        let seen = dir
            .fd()
            .and_then(|at| self.root.look(at, entry.file_name(), &path));
        match seen {
            Err(errno) => self.tree.fault(path, errno),
            Ok(Seen::Folder { linked: false, .. }) => self.pending.push(path),
            Ok(Seen::Folder { .. }) if self.root.follow_links => self.linked.push(path),
            Ok(_) if !is_audio => {}
            Ok(Seen::File { key, linked }) => self.tree.file(path, key, linked),
            Ok(Seen::Folder { key, .. }) => self.tree.odd(path, key, reason::NOT_REGULAR),
            Ok(Seen::Odd { key, reason }) => self.tree.odd(path, key, reason),
        }
    }
}

fn has_extension(name: &[u8], extensions: &[String]) -> bool {
    let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else {
        return false;
    };
    let extension = &name[dot + 1..];
    let mut all = extensions.iter();
    all.any(|known| known.as_bytes().eq_ignore_ascii_case(extension))
}

#[allow(clippy::unnecessary_cast)] // the types differ between systems
fn identity(stat: &rustix::fs::Stat) -> Identity {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// `None` for what does not exist, and so need not be excluded.
fn identity_at(path: &PathBuf) -> Option<Identity> {
    rustix::fs::stat(path).ok().as_ref().map(identity)
}
