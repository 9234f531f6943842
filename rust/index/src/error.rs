//! The one error type of the index.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation on the index failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused an operation on a path that the whole run needs.
    /// What befalls a single source file is a skip reason instead.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path that was worked on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest is damaged, of another version, or breaks one of its own
    /// rules. Its features must be computed again, never served.
    #[error("{0}")]
    Manifest(String),
    /// An argument of the caller breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// [`Watch::should_stop`](crate::Watch::should_stop) asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An I/O error that remembers its path.
    pub fn io(path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Error::Io {
            path: path.as_ref().to_path_buf(),
            source: source.into(),
        }
    }
}
