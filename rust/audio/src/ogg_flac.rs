//! FLAC in Ogg, also in several streams one after the other.

use crate::codec::{words, Codec};
use crate::decoder::{Format, Stream};
use crate::fault::Fault;
use crate::flac::{Progress, StreamInfo};
use crate::flac_frame::{crc16, FrameHeader};
use crate::window::Window;

const PAGE_HEAD: usize = 27;
/// Before the STREAMINFO block: mark, version, number of packets, `fLaC` and the block's head.
const MAPPING_HEAD: usize = 17;
/// A packet is no longer; FLAC frames and pictures are far below.
const LONGEST_PACKET: usize = 64 << 20;

/// A chain of Ogg streams with FLAC.
pub(crate) struct OggFlac {
    packets: Packets,
    first: Format,
    promised: Option<u64>,
    part: Option<Part>,
}

struct Part {
    info: StreamInfo,
    codec: Codec,
    progress: Progress,
}

impl OggFlac {
    pub(crate) fn open(window: Window) -> Result<Self, Fault> {
        let mut packets = Packets {
            window,
            offset: 0,
            serial: None,
            packet: Vec::new(),
            page: Vec::new(),
            is_lost: false,
        };
        let Some(true) = packets.next()? else {
            return Err(Fault::NotForMe);
        };
        let part = open_part(&packets.packet)?;
        Ok(Self {
            packets,
            first: part.info.format,
            promised: part.info.frames,
            part: Some(part),
        })
    }
}

fn open_part(packet: &[u8]) -> Result<Part, Fault> {
    let info = StreamInfo::parse(packet.get(MAPPING_HEAD..).unwrap_or_default())?;
    Ok(Part {
        codec: info.codec()?,
        progress: Progress::new(&info),
        info,
    })
}

impl Stream for OggFlac {
    fn name(&self) -> &'static str {
        "Ogg FLAC"
    }

    fn format(&self) -> Format {
        self.first
    }

    fn frames(&self) -> Option<u64> {
        self.promised
    }

    fn next(&mut self, samples: &mut Vec<f32>) -> Result<Option<Format>, Fault> {
        let is_first = self.packets.next()?;
        if let (None | Some(true), Some(part)) = (is_first, &self.part) {
            part.progress.end()?;
        }
        match is_first {
            None if self.packets.is_lost => {
                return Err(Fault::cut_short("cut short: its last page is incomplete"))
            }
            None => return Ok(None),
            Some(true) => self.part = Some(open_part(&self.packets.packet)?),
            Some(false) => {}
        }
        let (packet, Some(part)) = (&self.packets.packet, &mut self.part) else {
            return Ok(None);
        };
        // Other packets hold metadata.
        if packet.first() == Some(&0xFF) {
            let decoded = part.progress.decoded;
            let header = FrameHeader::parse(packet).filter(|header| header.fits(&part.info));
            let Some(header) = header.filter(|_| crc16(0, packet) == 0) else {
                let text = format!("damaged: the checksum is wrong after {decoded} frames");
                return Err(Fault::damaged(text));
            };
            part.progress.add(&header)?;
            match part.codec.decode(packet) {
                Ok((decoded, _)) => samples.extend_from_slice(decoded),
                Err(error) => {
                    let text = format!(
                        "damaged: decoding fails after {decoded} frames: {}",
                        words(&error)
                    );
                    return Err(Fault::damaged(text));
                }
            }
        }
        Ok(Some(part.info.format))
    }
}

/// The packets of the FLAC streams of a file.
struct Packets {
    window: Window,
    offset: u64,
    serial: Option<[u8; 4]>,
    /// The packet that `next` found.
    packet: Vec<u8>,
    /// What is left of the page: packets with whether they end here, last one first.
    page: Vec<(Vec<u8>, bool)>,
    /// Whether a page or a packet is incomplete.
    is_lost: bool,
}

impl Packets {
    /// Moves to the next packet. Returns whether it is the first one of a
    /// stream; None at the end.
    fn next(&mut self) -> Result<Option<bool>, Fault> {
        self.packet.clear();
        loop {
            while let Some((piece, ends)) = self.page.pop() {
                self.packet.extend_from_slice(&piece);
                if self.packet.len() > LONGEST_PACKET {
                    return Err(Fault::damaged("damaged: a packet has no end"));
                }
                if ends {
                    return Ok(Some(self.packet.starts_with(b"\x7FFLAC")));
                }
            }
            if !self.read_page()? {
                self.is_lost |= !self.packet.is_empty();
                return Ok(None);
            }
        }
    }

    /// Reads the next page of a FLAC stream; false at the end.
    fn read_page(&mut self) -> Result<bool, Fault> {
        loop {
            let Some(head) = self.window.array::<PAGE_HEAD>(self.offset)? else {
                self.is_lost |= self.window.starts_with(self.offset, b"OggS")?;
                return Ok(false);
            };
            if !head.starts_with(b"OggS") {
                self.offset = match self.find_page()? {
                    Some(offset) => offset,
                    None => return Ok(false),
                };
                continue;
            }
            let segments = usize::from(head[26]);
            let table = self.window.get(self.offset, PAGE_HEAD + segments)?.to_vec();
            let table = table.get(PAGE_HEAD..).unwrap_or_default();
            let length: usize = table.iter().map(|&length| usize::from(length)).sum();
            let content = self.offset + (PAGE_HEAD + segments) as u64;
            let bytes = self.window.get(content, length)?;
            if table.len() < segments || bytes.len() < length {
                self.is_lost = true;
                return Ok(false);
            }
            self.offset = content + length as u64;
            let serial = [head[14], head[15], head[16], head[17]];
            let is_start = head[5] & 2 != 0;
            if is_start && bytes.starts_with(b"\x7FFLAC") {
                self.serial = Some(serial);
            }
            if self.serial == Some(serial) {
                self.page = split(table, bytes);
                return Ok(true);
            }
        }
    }

    fn find_page(&mut self) -> Result<Option<u64>, Fault> {
        const STEP: usize = 1 << 16;
        while self.offset < self.window.size() {
            let bytes = self.window.get(self.offset, STEP + 4)?;
            if let Some(at) = bytes.windows(4).position(|bytes| bytes == b"OggS") {
                return Ok(Some(self.offset + at as u64));
            }
            self.offset += STEP as u64;
        }
        Ok(None)
    }
}

/// Splits a page by its table of segments.
fn split(table: &[u8], bytes: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let (mut pieces, mut start, mut end) = (Vec::new(), 0, 0);
    for &length in table {
        end += usize::from(length);
        if length < 255 {
            pieces.push((bytes[start..end].to_vec(), true));
            start = end;
        }
    }
    if start < end {
        pieces.push((bytes[start..end].to_vec(), false));
    }
    pieces.reverse();
    pieces
}
