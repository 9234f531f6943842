//! The parts of the file format that its reader and its writer share.

use super::cursor::Parsed;

/// The version of the file format.
pub const FORMAT_VERSION: u64 = 1;

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
