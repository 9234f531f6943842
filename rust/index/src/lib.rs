//! What changed in a folder of audio since its features were cached?
//!
//! A [`Manifest`] lists the packs of cached rows, the contents (by BLAKE3)
//! whose rows they hold, and the files that had those contents. [`scan`]
//! compares it with a folder and opens only the files whose stamps changed:
//!
//! ```text
//! walk ──found──► diff ──suspects──► hash ──► Scan { files, todo, added, … }
//!                  ▲                                   │ adopted by the caller
//! manifest.json ───┴──────────── load / commit ◄───────┘
//! ```
//!
//! Paths are bytes, relative to the dataset root, with `/` between components.
//! Nothing here knows Python.

#![deny(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod diff;
mod entry;
mod error;
mod filesystems;
mod hash;
mod listed;
mod manifest;
mod outcome;
mod path;
mod pool;
mod reason;
mod sniff;
mod stat;
mod text;
mod walk;
mod watch;

pub use diff::{scan, Options, Trust};
pub use error::{Error, Result};
pub use hash::{checksum_rows, hash_file, Hash, ROW_CHECKSUM_BYTES};
pub use manifest::{
    seal, Content, FileEntry, Live, Manifest, Pack, Segment, Summary, Totals, FORMAT_VERSION,
};
pub use outcome::{Counts, Scan, Todo};
pub use path::check_relative;
pub use sniff::{sniff, SNIFF_BYTES};
pub use stat::{Precision, StatKey};
pub use watch::{Silent, Stage, Watch};
