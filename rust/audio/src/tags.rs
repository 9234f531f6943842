//! Tags that other programs put before, behind and between the frames of a stream.

use std::io;

use crate::window::Window;

/// Returns the length of the tag at `offset`, bytes; None if there is none.
pub(crate) fn tag_length(window: &mut Window, offset: u64) -> io::Result<Option<u64>> {
    let size = window.size();
    let Some(head) = window.array::<32>(offset)? else {
        return short_tag(window, offset);
    };
    if head.starts_with(b"ID3") && head[3] < 0xFF && head[6..10].iter().all(|&byte| byte < 0x80) {
        let length = head[6..10]
            .iter()
            .fold(0, |sum, &byte| sum << 7 | u64::from(byte));
        let footer = if head[5] & 0x10 != 0 { 10 } else { 0 };
        return Ok(Some(10 + length + footer));
    }
    if head.starts_with(b"APETAGEX") {
        let length = u64::from(u32::from_le_bytes([head[12], head[13], head[14], head[15]]));
        // The flags say whether this is the header, which the length leaves out, or the footer.
        let is_header = head[23] & 0x20 != 0;
        return Ok(Some(if is_header { 32 + length } else { 32 }));
    }
    if head.starts_with(b"LYRICSBEGIN") {
        return lyrics_length(window, offset);
    }
    // ID3v1 is no longer than its 128 bytes; the enhanced one before it has 227.
    if head.starts_with(b"TAG+") && offset + 227 <= size {
        return Ok(Some(227));
    }
    short_tag(window, offset)
}

fn short_tag(window: &mut Window, offset: u64) -> io::Result<Option<u64>> {
    let is_id3v1 = window.starts_with(offset, b"TAG")? && offset + 128 <= window.size();
    Ok(is_id3v1.then_some(128))
}

/// Lyrics3 ends with a size that is found from the back, so its end is searched.
fn lyrics_length(window: &mut Window, offset: u64) -> io::Result<Option<u64>> {
    const LONGEST: usize = 1 << 20;
    let text = window.get(offset, LONGEST)?;
    let end = [b"LYRICS200", b"LYRICSEND"].iter().find_map(|end| {
        text.windows(end.len())
            .position(|found| found == end.as_slice())
    });
    Ok(end.map(|at| at as u64 + 9))
}

/// Skips ID3v2 tags at the start of a file, which some programs repeat.
pub(crate) fn behind_tags(window: &mut Window, mut offset: u64) -> io::Result<u64> {
    while let Some(length) = tag_length(window, offset)? {
        offset += length;
    }
    Ok(offset)
}
