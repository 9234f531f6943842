//! Visits folders one after another and collects the audio files in them.

use std::collections::HashSet;
use std::path::PathBuf;

use rustix::fd::OwnedFd;
use rustix::fs::{fstat, openat, Dir, DirEntry, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::path::join;
use crate::progress::Tick;
use crate::root::{Root, Seen};
use crate::skip_reason;
use crate::tree::Tree;
use crate::written::{Signs, MARK};
use crate::{Error, Result};

/// `tick` is called once for this many entries of a folder: about every
/// millisecond.
const POLL_ENTRIES: usize = 512;

/// Device and inode number of a folder, which identify it while it exists.
type Identity = (u64, u64);

/// What to look for, and where.
pub(super) struct Rules<'a> {
    pub(super) root: &'a Root,
    /// Extensions of files that are collected, and of those that are only counted.
    extensions: &'a [String],
    unread: &'a [String],
    excluded: HashSet<Identity>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        root: &'a Root,
        extensions: &'a [String],
        unread: &'a [String],
        exclude: &[PathBuf],
    ) -> Self {
        Rules {
            root,
            extensions,
            unread,
            excluded: exclude.iter().filter_map(identity_at).collect(),
        }
    }
}

pub(super) struct Walker<'a> {
    rules: &'a Rules<'a>,
    tick: Tick<'a>,
    pub(super) tree: Tree,
    /// Folders to visit. A list, because recursion would overflow the stack in
    /// a very deep tree.
    pub(super) pending: Vec<Box<[u8]>>,
    /// Links to folders, to visit after all real folders.
    linked: Vec<Box<[u8]>>,
    /// Folders already visited. Only used if links are followed.
    seen: HashSet<Identity>,
    entries: usize,
    /// Number of files found that were passed to `tick`.
    reported: u64,
}

impl<'a> Walker<'a> {
    pub(super) fn new(rules: &'a Rules<'a>, tick: Tick<'a>) -> Self {
        Walker {
            rules,
            tick,
            tree: Tree::default(),
            pending: Vec::new(),
            linked: Vec::new(),
            seen: HashSet::new(),
            entries: 0,
            reported: 0,
        }
    }

    /// Reads the root itself. An error there ends the walk.
    pub(super) fn visit_root(&mut self) -> Result<()> {
        let path = &self.rules.root.path;
        let failed = |errno: Errno| Error::io(path, errno);
        match self.open(b".", false).map_err(failed)? {
            Some(dir) => self.read(dir, b"")?.map_err(failed),
            None => Ok(()),
        }
    }

    /// Visits all pending folders, and those that are found in them.
    pub(super) fn visit_all(&mut self) -> Result<()> {
        self.visit_pending()?;
        // Real folders first, then links in order: which of two paths to the
        // same folder is used must not depend on the order of readdir.
        while !self.linked.is_empty() {
            self.linked.sort_unstable_by(|a, b| b.cmp(a));
            if let Some(path) = self.linked.pop() {
                self.visit(path, true)?;
                self.visit_pending()?;
            }
        }
        Ok(())
    }

    fn visit_pending(&mut self) -> Result<()> {
        while let Some(path) = self.pending.pop() {
            self.visit(path, false)?;
            if self.tree.is_away() {
                self.pending.clear();
                self.linked.clear();
            }
        }
        Ok(())
    }

    /// Visits a folder below the root. An error is recorded as a fault.
    pub(super) fn visit(&mut self, path: Box<[u8]>, linked: bool) -> Result<()> {
        let read = match self.open(&path, linked) {
            Ok(Some(dir)) => self.read(dir, &path)?,
            Ok(None) => Ok(()),
            Err(errno) => Err(errno),
        };
        if let Err(errno) = read {
            self.tree.fault(path, errno);
        }
        Ok(())
    }

    /// Opens a folder. `None` if it is excluded or was visited before.
    fn open(&mut self, path: &[u8], linked: bool) -> std::result::Result<Option<Dir>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let nofollow = if linked {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
        let fd = openat(&self.rules.root.fd, path, flags | nofollow, Mode::empty())?;
        if !self.is_wanted(&fd)? {
            return Ok(None);
        }
        Dir::new(fd).map(Some)
    }

    fn is_wanted(&mut self, fd: &OwnedFd) -> std::result::Result<bool, Errno> {
        let follow_links = self.rules.root.follow_links;
        if self.rules.excluded.is_empty() && !follow_links {
            return Ok(true); // saves a stat call for each folder
        }
        let identity = identity(&fstat(fd)?);
        let is_new = !follow_links || self.seen.insert(identity);
        Ok(is_new && !self.rules.excluded.contains(&identity))
    }

    /// Reads a folder. The outer error ends the walk, the inner one is about
    /// this folder only.
    fn read(&mut self, mut dir: Dir, path: &[u8]) -> Result<std::result::Result<(), Errno>> {
        self.poll()?;
        let mut signs = Signs::default();
        let first = (
            self.pending.len(),
            self.linked.len(),
            self.tree.faults.len(),
        );
        while let Some(entry) = dir.read() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return Ok(Err(errno)),
            };
            self.entries += 1;
            if self.entries.is_multiple_of(POLL_ENTRIES) {
                self.poll()?;
            }
            if entry.file_name().to_bytes() == MARK {
                self.pending.truncate(first.0);
                self.linked.truncate(first.1);
                self.tree.abandon_folder(path, first.2);
                return Ok(Ok(()));
            }
            self.entry(&dir, &entry, path, &mut signs);
        }
        if let Some(previews) = signs.previews(path) {
            let mut below = self.pending[first.0..].iter();
            if let Some(index) = below.position(|folder| *folder == previews) {
                let folder = self.pending.swap_remove(first.0 + index);
                self.tree.leave_out(folder);
            }
        }
        self.tree.end_folder();
        Ok(Ok(()))
    }

    fn poll(&mut self) -> Result<()> {
        let new = self.tree.files - self.reported;
        self.reported += new;
        match (self.tick)(new) {
            true => Ok(()),
            false => Err(Error::Interrupted),
        }
    }

    /// Counts a file that is not read, if it is of a kind that is named. A link is
    /// one, too: it costs a look to know where it leads.
    fn count_unread(&mut self, entry: &DirEntry) {
        if entry.file_type() == FileType::Directory {
            return;
        }
        let name = entry.file_name().to_bytes();
        if let Some(kind) = find_extension(name, self.rules.unread) {
            self.tree.count_unread(kind);
        }
    }

    fn entry(&mut self, dir: &Dir, entry: &DirEntry, folder: &[u8], signs: &mut Signs) {
        let name = entry.file_name().to_bytes();
        if name.starts_with(b".") {
            return;
        }
        let root = self.rules.root;
        let is_audio = find_extension(name, self.rules.extensions).is_some();
        if !is_audio {
            signs.note(name);
            self.count_unread(entry);
        }
        let is_wanted = match entry.file_type() {
            FileType::Directory => return self.pending.push(join(folder, name)),
            // Some filesystems only return the type from stat.
            FileType::Unknown => true,
            FileType::Symlink => is_audio || root.follow_links,
            _ => is_audio,
        };
        if !is_wanted {
            return;
        }
        let path = join(folder, name);
        let seen = dir
            .fd()
            .and_then(|at| root.look(at, entry.file_name(), &path));
        match seen {
            Err(errno) => self.tree.fault(path, errno),
            Ok(Seen::Folder { linked: false, .. }) => self.pending.push(path),
            Ok(Seen::Folder { .. }) if root.follow_links => self.linked.push(path),
            Ok(_) if !is_audio => {}
            Ok(Seen::File { key, linked }) => self.tree.file(&path, key, linked),
            Ok(Seen::Folder { key, .. }) => {
                self.tree.unusable(&path, key, &skip_reason::NOT_REGULAR);
            }
            Ok(Seen::Unusable { key, reason }) => self.tree.unusable(&path, key, reason),
        }
    }
}

/// The index in `extensions` of the extension of a file, in any case.
fn find_extension(name: &[u8], extensions: &[String]) -> Option<usize> {
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    let extension = &name[dot + 1..];
    let mut all = extensions.iter();
    all.position(|known| known.as_bytes().eq_ignore_ascii_case(extension))
}

#[allow(clippy::unnecessary_cast)] // the types differ between systems
fn identity(stat: &rustix::fs::Stat) -> Identity {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// `None` if the path does not exist, and so need not be excluded.
fn identity_at(path: &PathBuf) -> Option<Identity> {
    rustix::fs::stat(path).ok().as_ref().map(identity)
}
