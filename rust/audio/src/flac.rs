//! FLAC: frame after frame to the end, whatever the header says about their number.

use crate::codec::{words, Codec};
use crate::decoder::{Format, Stream};
use crate::fault::Fault;
use crate::flac_frame::{crc16, FrameHeader};
use crate::tags::{behind_tags, tag_length};
use crate::window::Window;

const STREAM_INFO_BYTES: usize = 34;
/// Bytes that are looked at first for the end of a frame.
const FIRST_LOOK: usize = 1 << 15;

/// The STREAMINFO block.
pub(crate) struct StreamInfo {
    pub(crate) bytes: [u8; STREAM_INFO_BYTES],
    pub(crate) format: Format,
    pub(crate) bits: u32,
    /// Number of frames, if it is stated.
    pub(crate) frames: Option<u64>,
}

impl StreamInfo {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes: [u8; STREAM_INFO_BYTES] = bytes
            .get(..STREAM_INFO_BYTES)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| Fault::cut_short("cut short: its header is incomplete"))?;
        let packed = bytes[10..18]
            .iter()
            .fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        let frames = packed & 0xF_FFFF_FFFF;
        Ok(Self {
            format: Format {
                sample_rate: (packed >> 44) as u32,
                channels: (packed >> 41 & 7) as usize + 1,
            },
            bits: (packed >> 36 & 31) as u32 + 1,
            frames: (frames > 0).then_some(frames),
            bytes,
        })
    }

    /// With limits that no frame exceeds, because some encoders state them wrongly.
    pub(crate) fn codec(&self) -> Result<Codec, Fault> {
        let mut bytes = self.bytes;
        bytes[..2].copy_from_slice(&16_u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&u16::MAX.to_be_bytes());
        bytes[4..10].fill(0);
        Codec::flac(&bytes)
    }
}

/// Counts what was decoded of a stream, and compares it with what its headers say.
pub(crate) struct Progress {
    promised: Option<u64>,
    pub(crate) decoded: u64,
    next: Option<u64>,
}

impl Progress {
    pub(crate) fn new(info: &StreamInfo) -> Self {
        Self {
            promised: info.frames,
            decoded: 0,
            next: None,
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// If frames are missing before it.
    pub(crate) fn add(&mut self, header: &FrameHeader) -> Result<(), Fault> {
        if self.next.is_some_and(|next| next != header.number) {
            let after = self.decoded;
            let text = format!("damaged: frames are missing after the first {after}");
            return Err(Fault::damaged(text));
        }
        self.decoded += u64::from(header.block);
        self.next = Some(header.next_number());
        Ok(())
    }

    /// Whether all that is promised was decoded, where something is.
    pub(crate) fn is_complete(&self) -> bool {
        self.promised.is_some_and(|frames| self.decoded >= frames)
    }

    pub(crate) fn end(&self) -> Result<(), Fault> {
        match self.promised {
            Some(promised) if self.decoded < promised => {
                Err(Fault::missing_frames(promised, self.decoded))
            }
            _ => Ok(()),
        }
    }
}

/// A FLAC file, or several that were joined.
pub(crate) struct Flac {
    window: Window,
    offset: u64,
    first: Format,
    promised: Option<u64>,
    part: Part,
}

struct Part {
    info: StreamInfo,
    codec: Codec,
    progress: Progress,
}

impl Flac {
    pub(crate) fn open(mut window: Window) -> Result<Self, Fault> {
        let start = behind_tags(&mut window, 0)?;
        if !window.starts_with(start, b"fLaC")? {
            return Err(Fault::NotForMe);
        }
        let (part, offset) = open_part(&mut window, start)?;
        Ok(Self {
            window,
            offset,
            first: part.info.format,
            promised: part.info.frames,
            part,
        })
    }

    /// Moves to the next part, if there is one.
    fn next_part(&mut self) -> Result<bool, Fault> {
        let start = behind_tags(&mut self.window, self.offset)?;
        if start >= self.window.size() {
            self.part.progress.end()?;
            return Ok(false);
        }
        let next = find_part(&mut self.window, start)?;
        match next {
            // Other bytes at the end are not sound that is missing.
            None if self.part.progress.is_complete() => return Ok(false),
            Some(next) if next == start || self.part.progress.is_complete() => {
                self.part.progress.end()?;
                (self.part, self.offset) = open_part(&mut self.window, next)?;
                return Ok(true);
            }
            _ => {}
        }
        let decoded = self.part.progress.decoded;
        let text = format!("damaged: it cannot be decoded any further after {decoded} frames");
        Err(Fault::damaged(text))
    }
}

impl Stream for Flac {
    fn name(&self) -> &'static str {
        "FLAC"
    }

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
        let header = FrameHeader::parse(self.window.get(self.offset, FrameHeader::LONGEST)?);
        let Some(header) = header.filter(|header| header.fits(&part.info)) else {
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
            let text = format!("damaged: the checksum is wrong after {decoded} frames");
            return Err(Fault::damaged(text));
        };
        let bytes = self.window.get(self.offset, length)?;
        part.progress.add(&header)?;
        match part.codec.decode(bytes) {
            Ok((decoded, _)) => samples.extend_from_slice(decoded),
            Err(error) => {
                let text = format!(
                    "damaged: decoding fails after {} frames: {}",
                    part.progress.decoded - u64::from(header.block),
                    words(&error)
                );
                return Err(Fault::damaged(text));
            }
        }
        self.offset += length as u64;
        Ok(Some(part.info.format))
    }
}

/// Reads the metadata at `start`, and returns where the first frame is.
fn open_part(window: &mut Window, start: u64) -> Result<(Part, u64), Fault> {
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
    let part = Part {
        codec: info.codec()?,
        progress: Progress::new(&info),
        info,
    };
    Ok((part, offset))
}

/// Finds the start of another file behind this one.
fn find_part(window: &mut Window, start: u64) -> Result<Option<u64>, Fault> {
    const STEP: usize = 1 << 16;
    // The mark, and the head of the block that must follow it.
    const LENGTH: usize = 8;
    let mut offset = start;
    while offset < window.size() {
        let bytes = window.get(offset, STEP + LENGTH)?;
        let found = bytes.windows(LENGTH).position(|bytes| {
            bytes.starts_with(b"fLaC\0\0\0\x22") || bytes.starts_with(b"fLaC\x80\0\0\x22")
        });
        if let Some(at) = found {
            return Ok(Some(offset + at as u64));
        }
        offset += STEP as u64;
    }
    Ok(None)
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
        if is_all {
            let at_end = crc16(sum, &bytes[summed..]) == 0 && bytes.len() < look;
            let end = bytes.len();
            if at_end {
                return Ok(Some(end));
            }
            return last_frame_length(window, offset, end, part);
        }
        look = (look * 2).min(longest);
    }
}

fn next_sync(bytes: &[u8], from: usize, until: usize) -> Option<usize> {
    let found = memchr::memchr(0xFF, bytes.get(from..until)?)?;
    Some(from + found)
}

/// Finds the end of a frame that no other one follows: the checksum is right
/// there, and a mark follows or the frame can be decoded, but not without its
/// last byte. The checksum alone is right by chance in one place of 65 536.
fn last_frame_length(
    window: &mut Window,
    offset: u64,
    look: usize,
    part: &mut Part,
) -> Result<Option<usize>, Fault> {
    let bytes = window.get(offset, look)?.to_vec();
    let mut sum = 0;
    for (index, byte) in bytes.iter().enumerate() {
        sum = crc16(sum, std::slice::from_ref(byte));
        if sum == 0 {
            let length = index + 1;
            let follows = offset + length as u64;
            let is_marked =
                tag_length(window, follows)?.is_some() || window.starts_with(follows, b"fLaC")?;
            let ends = |codec: &mut Codec| {
                // Behind the last byte is the checksum.
                codec.decode(&bytes[..length]).is_ok()
                    && codec.decode(&bytes[..length.saturating_sub(3)]).is_err()
            };
            if is_marked || ends(&mut part.codec) {
                return Ok(Some(length));
            }
        }
    }
    Ok(None)
}
