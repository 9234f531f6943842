//! Why a file is skipped, or used in part: all the codes and texts of the index.

use std::borrow::Cow;
use std::io;

/// Why a file or a content is skipped, or a content used in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkipReason {
    /// A short name for programs, which stays the same.
    pub code: Cow<'static, str>,
    /// What a user may read.
    pub text: Cow<'static, str>,
}

/// The code of a reason that has none: those of manifests written before there
/// were codes.
pub const UNUSABLE: &str = "unusable";
const UNREADABLE: &str = "unreadable";

/// The file has no bytes.
static EMPTY: SkipReason = fixed("empty", "empty file");
/// The file has more bytes than the caller allows.
static TOO_LARGE: SkipReason = fixed("too-large", "too large");
/// The file changed during every attempt to read it.
pub(crate) static UNSTABLE: SkipReason =
    fixed("unstable", "unstable: it changed while it was read");
/// A FIFO, socket, device or folder where a file was expected.
pub(crate) static NOT_REGULAR: SkipReason = fixed("not-regular", "not a regular file");
/// A symbolic link without a target.
pub(crate) static DANGLING: SkipReason = fixed("link-leads-nowhere", "a link that leads nowhere");
/// A symbolic link to a target outside the dataset.
pub(crate) static ESCAPES: SkipReason =
    fixed("link-leads-out", "a link that leads out of the dataset");
/// A listed file in a folder that distill writes its results to.
pub(crate) static WRITTEN: SkipReason = fixed("written", "in a folder that distill wrote");
/// A listed file that does not exist.
pub(crate) static MISSING: SkipReason = fixed("missing", "no such file");

const fn fixed(code: &'static str, text: &'static str) -> SkipReason {
    SkipReason {
        code: Cow::Borrowed(code),
        text: Cow::Borrowed(text),
    }
}

impl SkipReason {
    /// A reason with a code.
    pub fn new(code: String, text: String) -> Self {
        SkipReason {
            code: code.into(),
            text: text.into(),
        }
    }

    /// The reason of a manifest that was written before there were codes.
    pub(crate) fn without_code(text: String) -> Self {
        let known = [
            &EMPTY,
            &TOO_LARGE,
            &UNSTABLE,
            &NOT_REGULAR,
            &DANGLING,
            &ESCAPES,
        ];
        let same = known.into_iter().find(|reason| reason.text == text);
        let unreadable = text.starts_with("unreadable: ").then_some(UNREADABLE);
        match same {
            Some(reason) => reason.clone(),
            None => SkipReason {
                code: unreadable.unwrap_or(UNUSABLE).into(),
                text: text.into(),
            },
        }
    }
}

/// The reason for an I/O error on the file.
pub(crate) fn unreadable(error: &io::Error) -> SkipReason {
    // Rust appends the error number: "Permission denied (os error 13)".
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    SkipReason {
        code: UNREADABLE.into(),
        text: format!("unreadable: {}", text.to_lowercase()).into(),
    }
}

/// Why a file of this size is skipped without being opened, if so.
pub(crate) fn by_size(size: u64, max_bytes: u64) -> Option<&'static SkipReason> {
    match size {
        0 => Some(&EMPTY),
        _ if size > max_bytes => Some(&TOO_LARGE),
        _ => None,
    }
}
