//! Finds out what changed in a folder of audio since its features were cached.
//!
//! A [`Manifest`] has three tables: the packs, which are the files of cached
//! rows; the contents, each identified by its BLAKE3 hash, with the location of
//! its rows in the packs; and the source files with the content of each.
//! [`scan()`] compares a manifest with a folder. It opens only new files and
//! files whose size, times or inode number changed:
//!
//! ```text
//! walk ──found──► compare ──suspects──► hash ──► Scan { files, todo, added, … }
//!                    ▲                                │ applied by the caller
//! manifest.json ─────┴────────── load / save ◄────────┘
//! ```
//!
//! Paths are bytes, relative to the dataset's root, with `/` between components.
//! This crate does not depend on Python.
//!
//! # Example
//!
//! A file is renamed: its content is known, so there is nothing to compute.
//!
//! ```
//! use distill_index::{scan, Content, Manifest, NoProgress, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let (old, new) = (folder.path().join("kick.wav"), folder.path().join("drum.wav"));
//! std::fs::write(&old, b"RIFF\x24\0\0\0WAVEfmt ")?;
//! let options = Options {
//!     extensions: vec!["wav".into()],
//!     ..Options::default()
//! };
//!
//! let mut manifest = Manifest::default();
//! let first = scan(&manifest, folder.path(), &options, &NoProgress)?;
//! assert!(first.added.iter().eq([b"kick.wav"]));
//! manifest.apply(&first);
//! for todo in first.todo() {
//!     // Here the caller computes the features of `todo.path`.
//!     manifest.set_content(todo.hash.unwrap(), Content::default())?;
//! }
//!
//! std::fs::rename(old, new)?;
//! let second = scan(&manifest, folder.path(), &options, &NoProgress)?;
//! let (from, to) = &second.renamed;
//! assert!(from.iter().eq([b"kick.wav"]) && to.iter().eq([b"drum.wav"]));
//! assert_eq!(second.n_todo(), 0);
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod away;
mod error;
mod file_list;
mod files;
mod filesystems;
mod found;
mod hash;
mod hash_files;
mod hasher;
mod json_string;
mod manifest;
mod path;
mod paths;
mod progress;
mod records;
mod root;
mod scan;
mod scan_result;
mod skip_reason;
mod stat;
mod threads;
mod tree;
mod walk;
mod written;

pub use error::{Error, Result};
pub use files::{File, Files};
pub use hash::{checksum_rows, hash_file, Hash, ROW_CHECKSUM_BYTES};
pub use manifest::{seal, FileTable, Live, Manifest, Summary, Totals, FORMAT_VERSION};
pub use path::check_relative;
pub use paths::Paths;
pub use progress::{NoProgress, Progress, Stage};
pub use records::{Content, Pack, Segment};
pub use scan::{scan, Hashing, Options, Trust};
pub use scan_result::{Counts, Scan, Todo};
pub use skip_reason::{SkipReason, UNUSABLE};
pub use stat::{Precision, StatKey};
