//! FLAC: frame after frame to the end, whatever the header says about their number.

use std::io;

use crate::codec::Codec;
use crate::decoder::{Format, Stream};
use crate::fault::Fault;
use crate::flac_frame::{crc16, FrameHeader};
use crate::flac_part::{Part, StreamInfo, STREAM_INFO_BYTES};
use crate::tags::{begins_tag, behind_tags, content_bytes, TAIL_BYTES};
use crate::window::Window;

/// Bytes at the start of a file that tell it from chance.
const PART_HEAD: usize = 8;
/// Bytes that are looked at first for the end of a frame.
const FIRST_LOOK: usize = 1 << 15;

/// A FLAC file, or several that were joined.
pub(crate) struct Flac {
    window: Window,
    offset: u64,
    first: Format,
    promised: Option<u64>,
    part: Part,
    /// What was lost between the parts.
    fault: Option<Fault>,
}

impl Flac {
    pub(crate) fn open(mut window: Window) -> Result<Self, Fault> {
        let start = behind_tags(&mut window, 0)?;
        if !window.starts_with(start, b"fLaC")? {
            return Err(Fault::NotForMe);
        }
        let (info, offset) = read_info(&mut window, start)?;
        let part = Part::new(info);
        Ok(Self {
            window,
            offset,
            first: part.info.format,
            promised: part.info.frames,
            part,
            fault: None,
        })
    }

    /// Moves to the next part, if there is one.
    fn next_part(&mut self) -> Result<bool, Fault> {
        let start = behind_tags(&mut self.window, self.offset)?;
        let size = self.window.size();
        let (next, behind) = find_part(&mut self.window, start)?;
        let end = next.unwrap_or(size);
        let progress = &self.part.progress;
        if behind > 0 && !progress.is_complete() {
            let what = "it cannot be decoded any further";
            return Err(Fault::damaged_after(progress.decoded, what));
        }
        progress.end()?;
        if behind > TAIL_BYTES && self.fault.is_none() {
            let text = format!(
                "goes on as something else behind frame {}: {} bytes",
                progress.decoded,
                end - start
            );
            self.fault = Some(Fault::damaged(text));
        }
        let Some(next) = next else {
            return self.fault.take().map_or(Ok(false), Err);
        };
        let (info, offset) = read_info(&mut self.window, next)?;
        self.part = Part::behind(&mut self.part, info);
        self.offset = offset;
        Ok(true)
    }
}

impl Stream for Flac {
    fn format(&self) -> Format {
        self.first
    }

    fn frames(&self) -> Option<u64> {
        self.promised
    }

    fn next(&mut self, samples: &mut Vec<f32>) -> Result<Option<Format>, Fault> {
        let part = &mut self.part;
        if part.progress.decoded == 0 {
            self.window.catch_up(self.offset)?;
        }
        let header = part.header(self.window.get(self.offset, FrameHeader::LONGEST)?);
        let Some(header) = header else {
            return Ok(self.next_part()?.then_some(self.part.info.format));
        };
        let Some(length) = frame_length(&mut self.window, self.offset, &header, part)? else {
            let decoded = part.progress.decoded;
            let left = self.window.size() - self.offset;
            // Less than a frame can be is an incomplete one.
            if left < header.longest(&part.info) as u64 {
                part.progress.end()?;
                let text =
                    format!("cut short: its last block is incomplete after {decoded} frames");
                return Err(Fault::cut_short(text));
            }
            return Err(Fault::damaged_after(decoded, "the checksum is wrong"));
        };
        let bytes = self.window.get(self.offset, length)?;
        part.decode(&header, bytes, samples)?;
        self.offset += length as u64;
        Ok(Some(part.info.format))
    }
}

/// Reads the metadata at `start`, and returns where the first frame is.
fn read_info(window: &mut Window, start: u64) -> Result<(StreamInfo, u64), Fault> {
    let mut offset = start + 4;
    let mut info = None;
    while let Some([kind, high, middle, low]) = window.array::<4>(offset)? {
        let length = u64::from(u32::from_be_bytes([0, high, middle, low]));
        if kind & 0x7F == 0 && info.is_none() {
            let bytes = window.get(offset + 4, STREAM_INFO_BYTES)?;
            info = Some(StreamInfo::parse(bytes)?);
        }
        offset += 4 + length;
        if kind & 0x80 != 0 {
            break;
        }
    }
    let Some(info) = info else {
        return Err(Fault::damaged("damaged: its header is incomplete"));
    };
    Ok((info, offset))
}

/// Finds the start of another file behind this one. Returns it with the number of bytes before
/// it that are not 0: what is filled up with zeros holds nothing.
fn find_part(window: &mut Window, start: u64) -> io::Result<(Option<u64>, u64)> {
    const STEP: usize = 1 << 16;
    let (mut offset, mut content) = (start, 0);
    while offset < window.size() {
        let bytes = window.get(offset, STEP + PART_HEAD)?;
        let found = part_mark(bytes);
        let before = &bytes[..found.unwrap_or(STEP.min(bytes.len()))];
        content += content_bytes(before);
        if let Some(at) = found {
            return Ok((Some(offset + at as u64), content));
        }
        offset += STEP as u64;
    }
    Ok((None, content))
}

/// Returns where another file begins: its mark, and the head of the block that must follow it.
fn part_mark(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(bytes, b"fLaC").find(|&at| {
        matches!(
            bytes.get(at + 4..at + PART_HEAD),
            Some([0 | 0x80, 0, 0, 0x22])
        )
    })
}

/// Returns the length of the frame at `offset`: its checksum is right, and
/// another frame, another file, a tag or the end follows.
fn frame_length(
    window: &mut Window,
    offset: u64,
    header: &FrameHeader,
    part: &mut Part,
) -> Result<Option<usize>, Fault> {
    let longest = header.longest(&part.info) + FrameHeader::LONGEST;
    let mut look = FIRST_LOOK.min(longest);
    let (mut sum, mut summed, mut from) = (0, 0, header.length);
    loop {
        let bytes = window.get(offset, look)?;
        let is_all = bytes.len() < look || look == longest;
        // A header at the edge may be incomplete, and is looked at again.
        let edge = bytes.len().saturating_sub(FrameHeader::LONGEST);
        let until = if is_all { bytes.len() } else { edge };
        let fresh = from.min(until);
        while let Some(at) = next_sync(bytes, from, until) {
            from = at + 1;
            let follows = FrameHeader::parse(&bytes[at..]);
            if follows.is_some_and(|next| next.fits(&part.info) && header.is_before(&next)) {
                sum = crc16(sum, &bytes[summed..at]);
                summed = at;
                if sum == 0 {
                    return Ok(Some(at));
                }
            }
        }
        from = from.max(until);
        let mark = part_mark(&bytes[fresh..]).map(|at| fresh + at);
        if is_all || mark.is_some() {
            let end = mark.unwrap_or(bytes.len());
            // The last frame of the part ends where the file or the part does.
            if crc16(0, &bytes[..end]) == 0 && (mark.is_some() || bytes.len() < look) {
                return Ok(Some(end));
            }
            return Ok(last_frame_length(&bytes[..end], part.codec()?));
        }
        look = (look * 2).min(longest);
    }
}

fn next_sync(bytes: &[u8], from: usize, until: usize) -> Option<usize> {
    let found = memchr::memchr(0xFF, bytes.get(from..until)?)?;
    Some(from + found)
}

/// Finds the end of a frame that no other one follows: the checksum is right
/// there, and a tag follows or the frame can be decoded, but not without its
/// last byte. The checksum alone is right by chance in one place of 65 536.
fn last_frame_length(bytes: &[u8], codec: &mut Codec) -> Option<usize> {
    let mut sum = 0;
    let mut ends = Vec::new();
    for (index, byte) in bytes.iter().enumerate() {
        sum = crc16(sum, std::slice::from_ref(byte));
        let length = index + 1;
        if sum == 0 {
            if begins_tag(&bytes[length..]) {
                return Some(length);
            }
            ends.push(length);
        }
    }
    let mut is_enough = |length: usize| codec.decode(&bytes[..length]).is_ok();
    // More bytes than a frame has do not keep it from being decoded.
    let first = *ends.get(ends.partition_point(|&length| !is_enough(length)))?;
    // Behind the last byte is the checksum.
    (!is_enough(first.saturating_sub(3))).then_some(first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::last_frame_length;
    use crate::codec::Codec;
    use crate::flac_frame::crc16;

    /// A frame of 16 zeros in mono, behind the rest of its header.
    fn frame() -> Vec<u8> {
        let mut frame = vec![0xFF, 0xF8, 0x69, 0x08, 0, 15];
        let sum = frame.iter().fold(0_u8, |sum, byte| {
            (0..8).fold(sum ^ byte, |sum, _| {
                sum << 1 ^ if sum & 0x80 != 0 { 7 } else { 0 }
            })
        });
        frame.extend([sum, 0, 0, 0]);
        frame.extend(crc16(0, &frame).to_be_bytes());
        frame
    }

    fn codec() -> Codec {
        let mut info = [0_u8; 34];
        info[..4].copy_from_slice(&[0, 16, 0xFF, 0xFF]);
        info[10..18].copy_from_slice(&(44_100_u64 << 44 | 15 << 36).to_be_bytes());
        Codec::flac(&info).unwrap()
    }

    #[test]
    fn the_last_frame_ends_before_whatever_follows() {
        let frame = frame();
        for behind in [&b"something else"[..], &[0; 4000], b"TAG", b"\xFF\xFF"] {
            let bytes = [&frame, behind].concat();
            assert_eq!(last_frame_length(&bytes, &mut codec()), Some(frame.len()));
        }
        let damaged: Vec<u8> = frame.iter().map(|byte| byte ^ 1).collect();
        assert_eq!(last_frame_length(&damaged, &mut codec()), None);
    }
}
