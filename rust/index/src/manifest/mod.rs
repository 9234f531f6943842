//! The manifest: what is in a cache, and which files it came from.
//!
//! - `tables`: the tables in memory, and the operations that change them
//! - `check`: the rules for their records
//! - `queries`: what readers of a cache need from them
//! - `contents`: the table of contents
//! - `sealed`, `read`, `lines`, `cursor`, `write`: conversion from and to JSON, block by block
//! - `format`: what reader and writer share
//! - `binary`: a copy of the tables beside the JSON file, which is read faster
//! - `file`: loading and replacing the file
//! - `file_table`: the table of files alone, which the caches of a dataset share

mod binary;
mod check;
mod contents;
mod cursor;
mod file;
mod file_table;
mod format;
mod lines;
mod queries;
mod read;
mod sealed;
mod tables;
mod write;

pub use file_table::FileTable;
pub use format::{seal, FORMAT_VERSION};
pub use queries::{Live, Summary, Totals};
pub use tables::Manifest;
