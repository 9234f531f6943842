//! Why a file is skipped: all the texts that a user may read.

use std::io;

/// The file has no bytes.
const EMPTY: &str = "empty file";
/// The file has more bytes than the caller allows.
const TOO_LARGE: &str = "too large";
/// [`sniff`](crate::sniff()) returned false.
pub(crate) const UNRECOGNISED: &str =
    "not an audio file: its first bytes are those of no format that distill reads";
/// The file changed during every attempt to read it.
pub(crate) const UNSTABLE: &str = "unstable: it changed while it was read";
/// A FIFO, socket, device or folder where a file was expected.
pub(crate) const NOT_REGULAR: &str = "not a regular file";
/// A symbolic link without a target.
pub(crate) const DANGLING: &str = "a link that leads nowhere";
/// A symbolic link to a target outside the dataset.
pub(crate) const ESCAPES: &str = "a link that leads out of the dataset";
/// A listed file in a folder that distill writes its results to.
pub(crate) const WRITTEN: &str = "in a folder that distill wrote";
/// A listed file that does not exist.
pub(crate) const MISSING: &str = "no such file";

/// The reason for an I/O error on the file.
pub(crate) fn unreadable(error: &io::Error) -> String {
    // Rust appends the error number: "Permission denied (os error 13)".
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    format!("unreadable: {}", text.to_lowercase())
}

/// Whether the reason follows from the file's bytes alone, so that it holds as
/// long as the file is unchanged. Other files are examined again at each scan.
pub(crate) fn is_permanent(reason: &str) -> bool {
    reason == UNRECOGNISED
}

/// Why a file of this size is skipped without being opened, if so.
pub(crate) fn by_size(size: u64, max_bytes: u64) -> Option<&'static str> {
    match size {
        0 => Some(EMPTY),
        _ if size > max_bytes => Some(TOO_LARGE),
        _ => None,
    }
}
