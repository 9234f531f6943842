//! Paths inside a dataset.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use memchr::memchr;

/// Checks that `path` is a plain relative path.
///
/// # Errors
///
/// If the path is absolute or empty, has an empty, `.` or `..` component, or
/// contains a NUL. The error completes the sentence "the path ...".
pub fn check_relative(path: &[u8]) -> Result<(), &'static str> {
    if path.starts_with(b"/") {
        return Err("is absolute");
    }
    if memchr(0, path).is_some() {
        return Err("contains a NUL");
    }
    let mut rest = Some(path);
    while let Some(path) = rest {
        let slash = memchr(b'/', path);
        match &path[..slash.unwrap_or(path.len())] {
            b"" => return Err("has an empty component"),
            b"." | b".." => return Err("has a '.' or '..' component"),
            _ => {}
        }
        rest = slash.map(|at| &path[at + 1..]);
    }
    Ok(())
}

/// `folder/name`; the root is the empty folder.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Box<[u8]> {
    if folder.is_empty() {
        return name.into();
    }
    let mut path = Vec::with_capacity(folder.len() + 1 + name.len());
    path.extend_from_slice(folder);
    path.push(b'/');
    path.extend_from_slice(name);
    path.into_boxed_slice()
}

/// The folder that a relative path is in; empty for the root.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    &path[..slash.unwrap_or(0)]
}

/// A relative path joined to `root`.
pub(crate) fn under(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}
