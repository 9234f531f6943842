//! The error type of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation on the index failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An I/O error on a path that the whole operation needs. An error on a
    /// single source file is a skip reason instead.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path of the failed operation.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file is damaged, or breaks a rule of the format. The features that it lists must not be used.
    #[error("{0}")]
    Manifest(String),
    /// The file was written by a later version of this program. It is not damaged.
    #[error("its format is {found}, this program reads up to {newest}")]
    Newer {
        /// The version of the file's format.
        found: u64,
        /// The latest version that this program reads.
        newest: u64,
    },
    /// An argument is invalid.
    #[error("{0}")]
    Invalid(String),
    /// [`Progress::should_stop`](crate::Progress::should_stop) returned true.
    #[error("interrupted")]
    Interrupted,
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Error::Io {
            path: path.as_ref().to_path_buf(),
            source: source.into(),
        }
    }
}
