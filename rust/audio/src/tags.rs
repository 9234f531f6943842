//! Tags that other programs put before, behind and between the frames of a stream.

use std::io;

use crate::window::Window;

/// Bytes behind the last frame that may be a tag of unknown form.
pub(crate) const TAIL_BYTES: u64 = 4096;

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
    let known = window.lyrics.filter(|known| known.covers(offset));
    let mut search = match known {
        Some(LyricsSearch { end: Some(end), .. }) => return Ok(Some(end - offset)),
        Some(search) => search,
        None => LyricsSearch {
            from: offset,
            until: offset,
            end: None,
        },
    };
    let text = window.get(offset, LONGEST)?;
    let seen = (search.until - offset) as usize;
    let rest = text.get(seen..).unwrap_or_default();
    let end = memchr::memmem::find_iter(rest, b"LYRICS")
        .map(|at| seen + at + LYRICS_END)
        .find(|&end| matches!(text.get(end - 3..end), Some(b"200" | b"END")));
    search.end = end.map(|end| offset + end as u64);
    // The mark may begin before the edge.
    let searched = offset + text.len().saturating_sub(LYRICS_END) as u64;
    search.until = search.end.unwrap_or(searched.max(search.until));
    window.lyrics = Some(search);
    Ok(end.map(|end| end as u64))
}

const LYRICS_END: usize = b"LYRICS200".len();

/// The last search for the end of Lyrics3, so that no byte is searched twice.
#[derive(Clone, Copy)]
pub(crate) struct LyricsSearch {
    from: u64,
    /// The end that was found, or the offset up to which none begins.
    until: u64,
    end: Option<u64>,
}

impl LyricsSearch {
    fn covers(&self, offset: u64) -> bool {
        let last = self
            .until
            .saturating_sub(self.end.map_or(0, |_| LYRICS_END as u64));
        (self.from..=last).contains(&offset)
    }
}

/// Whether `bytes` begin like a tag, or another FLAC file.
pub(crate) fn begins_tag(bytes: &[u8]) -> bool {
    const MARKS: [&[u8]; 5] = [b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"fLaC"];
    MARKS.iter().any(|mark| bytes.starts_with(mark))
}

/// Returns how many bytes are not 0.
pub(crate) fn content_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte != 0).count() as u64
}

/// Skips ID3v2 tags at the start of a file, which some programs repeat.
pub(crate) fn behind_tags(window: &mut Window, mut offset: u64) -> io::Result<u64> {
    while let Some(length) = tag_length(window, offset)? {
        offset += length;
    }
    Ok(offset)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::tag_length;
    use crate::window::Window;

    #[test]
    fn the_end_of_lyrics_is_searched_once_however_often_they_begin() {
        const BEGIN: &[u8] = b"LYRICSBEGIN";
        const COUNT: usize = 4000;
        for (end, is_closed) in [
            (b"LYRICS200", true),
            (b"LYRICSEND", true),
            (b"LYRICS300", false),
        ] {
            let mut bytes = BEGIN.repeat(COUNT);
            bytes.resize(900_000, 0);
            bytes.extend(end);
            let size = bytes.len();
            let mut window = Window::new(Box::new(bytes));
            for index in 0..COUNT {
                let at = index * BEGIN.len();
                let expected = is_closed.then_some((size - at) as u64);
                assert_eq!(tag_length(&mut window, at as u64).unwrap(), expected);
            }
        }
    }

    #[test]
    fn lyrics_end_at_the_next_mark() {
        let bytes = b"LYRICSBEGINaLYRICSENDbLYRICSBEGINcdLYRICS200, and what is behind it".to_vec();
        let mut window = Window::new(Box::new(bytes));
        for (offset, length) in [(0, Some(21)), (22, Some(22)), (0, Some(21)), (1, None)] {
            assert_eq!(tag_length(&mut window, offset).unwrap(), length);
        }
    }
}
