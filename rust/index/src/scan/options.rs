//! The options of a scan.

use std::path::PathBuf;

use crate::manifest::FileTable;

/// When a file counts as unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// If its size, times and inode number are those recorded, and it was not
    /// racy.
    #[default]
    Stat,
    /// If its bytes have the recorded hash. Every file is read.
    Content,
}

/// Which of the new and changed files are hashed. The others are in
/// [`Scan::todo`](crate::Scan::todo) without a hash, and whoever reads one records it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hashing {
    /// All of them.
    #[default]
    All,
    /// Those whose size another file has, which is new, changed or known: only
    /// these can have the content of another file.
    SameSize,
    /// None of them, apart from files that are known, and may have changed since within
    /// a tick of the file system's clock.
    None,
}

/// The options of a scan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Extensions of audio files: lower case, without the dot.
    pub extensions: Vec<String>,
    /// Extensions of files that are only counted, because nothing here reads them.
    pub unread: Vec<String>,
    /// Folders to leave out.
    pub exclude: Vec<PathBuf>,
    /// Use these paths, relative to the root, instead of walking. What is known of
    /// other files stays in the table, but they are not selected.
    pub files: Option<Vec<Vec<u8>>>,
    /// Files that another manifest has hashed already.
    pub known: FileTable,
    /// Follow every symbolic link. Otherwise only links to files inside the
    /// dataset are followed.
    pub follow_links: bool,
    /// When a file counts as unchanged.
    pub trust: Trust,
    /// Larger files are skipped.
    pub max_bytes: u64,
    /// Maximum number of threads that walk, and that hash.
    pub workers: usize,
    /// Whether to hash new files. If not, they are listed as added only: renames
    /// are not detected, and the new table of files does not include them.
    pub hash_added: bool,
    /// Which new and changed files are hashed.
    pub hashing: Hashing,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            extensions: Vec::new(),
            unread: Vec::new(),
            exclude: Vec::new(),
            files: None,
            known: FileTable::default(),
            follow_links: false,
            trust: Trust::Stat,
            max_bytes: 64 << 30,
            workers: 1,
            hash_added: true,
            hashing: Hashing::All,
        }
    }
}
