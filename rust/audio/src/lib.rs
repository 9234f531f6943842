//! Reads audio files.
#![forbid(unsafe_code)]

mod source;

pub use source::ByteSource;
