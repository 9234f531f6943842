//! The parts of the file format that its reader and its writer share.

use super::cursor::{Cursor, Parsed};
use crate::{Error, Result};

/// The version of the file format that is written.
pub const FORMAT_VERSION: u64 = 3;

/// The oldest version that is read. Version 2 added `selected` of a file and `partial`
/// of a content, which are left out where they are true and none. Since version 3 packs
/// may have row checksums that earlier programs would take for damage, and a content may
/// have `silent_runs`, which are left out where there are none. The same parser reads all
/// of them.
const OLDEST_VERSION: u64 = 1;

/// The start of the last line, which holds the checksum of everything before.
const CHECKSUM_KEY: &[u8] = b"\"checksum\":\"";
const CHECKSUM_DIGITS: usize = 64;
/// The end of the last line.
const CHECKSUM_END: &[u8] = b"\"}\n";

/// Size of the last line.
pub(super) const SEAL_BYTES: usize = CHECKSUM_KEY.len() + CHECKSUM_DIGITS + CHECKSUM_END.len();

/// Appends the checksum line to the text before it. Public so that a test can
/// give invalid text a valid checksum.
pub fn seal(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&body);
    body.extend_from_slice(&last_line(checksum));
    body
}

/// The first lines of a file.
pub(super) fn first_lines() -> Vec<u8> {
    format!("{{\n\"version\":{FORMAT_VERSION},\n").into_bytes()
}

/// The last line, with the checksum of everything before it.
pub(super) fn last_line(checksum: blake3::Hash) -> Vec<u8> {
    [CHECKSUM_KEY, checksum.to_hex().as_bytes(), CHECKSUM_END].concat()
}

/// Splits a file into the text before the last line and the checksum in it. The
/// last [`SEAL_BYTES`] are enough to find out whether there is a checksum.
pub(super) fn split_seal(bytes: &[u8]) -> Parsed<(&[u8], &[u8])> {
    const MISSING: &str = "it has no checksum at its end";
    let rest = bytes.strip_suffix(CHECKSUM_END).ok_or(MISSING)?;
    let digits = rest.len().checked_sub(CHECKSUM_DIGITS).ok_or(MISSING)?;
    let (rest, checksum) = rest.split_at(digits);
    let body = rest.strip_suffix(CHECKSUM_KEY).ok_or(MISSING)?;
    Ok((body, checksum))
}

/// Checks the version in the second line of a file.
pub(super) fn version(line: &str) -> Parsed<()> {
    let mut cursor = Cursor::new(line);
    cursor.expect("\"version\":")?;
    let version = cursor.uint()?;
    cursor.expect(",")?;
    cursor.end()?;
    match (OLDEST_VERSION..=FORMAT_VERSION).contains(&version) {
        true => Ok(()),
        false => Err(format!(
            "its version is {version}, this program reads {OLDEST_VERSION} to {FORMAT_VERSION}"
        )),
    }
}

/// Rejects an undamaged file of a later version, by its first bytes: what it lists is not
/// lost.
pub(super) fn check_not_newer(start: &[u8]) -> Result<()> {
    let start = start.strip_prefix(b"{\n\"version\":").unwrap_or_default();
    let digits = start.iter().take_while(|byte| byte.is_ascii_digit());
    let version = digits.fold(0, |value: u64, digit| {
        value
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    match version > FORMAT_VERSION {
        true => Err(Error::Newer {
            found: version,
            newest: FORMAT_VERSION,
        }),
        false => Ok(()),
    }
}
