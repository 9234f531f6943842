//! The error type of this crate.

/// Why a kernel cannot be created, or cannot compute.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Arguments are invalid or do not fit together. The message names them.
    #[error("{0}")]
    Invalid(String),
}
