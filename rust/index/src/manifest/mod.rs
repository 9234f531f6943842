//! The manifest: what is in a cache, and which files it came from.
//!
//! [`tables`] holds the tables in memory, [`check`] their rules, [`queries`]
//! what readers of a cache need from them. The file is JSON of a strict form:
//! [`write`] and [`read`] (with [`cursor`]) convert it, [`format`](mod@format) is
//! what both share, and [`file`](mod@file) loads and replaces it.

mod check;
mod cursor;
mod file;
mod format;
mod queries;
mod read;
mod tables;
mod write;

pub use format::{seal, FORMAT_VERSION};
pub use queries::{Live, Summary, Totals};
pub use tables::Manifest;
