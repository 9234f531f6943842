//! Reads rows of features from packs, checks them and converts them.
//!
//! Rows are read, not mapped: a read error in mapped memory kills the process. The
//! system is told which bytes of a batch are wanted before the first is read, so a
//! disk delivers them side by side, and reads nothing else.
//!
//! A row is read, checked against its checksum when it is first read, and converted
//! while it is in the cache of the core that read it.

#![deny(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod checksums;
mod file;
mod read;

pub use checksums::{Algorithm, Checksums, CHECKSUM_BYTES};
pub use file::PackFile;
pub use read::{read_floats, read_stored, Fault, Layout, Normalization, Row, Stored};
