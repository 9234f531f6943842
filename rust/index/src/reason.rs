//! Why a file is skipped: every phrase that a person may read, in one place.

use std::io;

/// Zero bytes.
pub(crate) const EMPTY: &str = "empty file";
/// More bytes than the caller allows.
pub(crate) const TOO_LARGE: &str = "too large";
/// [`sniff`](crate::sniff) said no.
pub(crate) const UNRECOGNISED: &str =
    "not an audio file: its first bytes are those of no format that distill reads";
/// It changed during each of our attempts to read it.
pub(crate) const UNSTABLE: &str = "unstable: it changed while it was read";
/// A FIFO, a socket, a device or a folder where a file was expected.
pub(crate) const NOT_REGULAR: &str = "not a regular file";
/// A symbolic link that leads to nothing.
pub(crate) const DANGLING: &str = "a link that leads nowhere";
/// A symbolic link that leads out of the dataset.
pub(crate) const ESCAPES: &str = "a link that leads out of the dataset";
/// A listed file that does not exist.
pub(crate) const MISSING: &str = "no such file";

/// The system would not let us read it.
pub(crate) fn unreadable(error: &io::Error) -> String {
    // "Permission denied (os error 13)": the number helps nobody here.
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    format!("unreadable: {}", text.to_lowercase())
}

/// Whether the reason stands for as long as the stamps do. The others come
/// from circumstances that no stamp shows, and are tried again at each scan.
pub(crate) fn is_settled(reason: &str) -> bool {
    reason == UNRECOGNISED
}
