//! The packets of the FLAC streams in an Ogg file.

use std::collections::VecDeque;

use crate::fault::Fault;
use crate::window::Window;

const PAGE_HEAD: usize = 27;
const MAGIC: &[u8] = b"OggS";
/// Flags of a page.
const CONTINUED: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;
/// A packet is no longer; FLAC frames and pictures are far below.
const LONGEST_PACKET: usize = 64 << 20;

/// Pages whose checksum is tried in vain. Where there are more, only what another page follows is one.
const MOST_WRONG_PAGES: u32 = 256;

/// Moves from packet to packet, over pages of other streams and over what is no page.
pub(crate) struct Packets {
    window: Window,
    offset: u64,
    serial: Option<[u8; 4]>,
    /// The packet that `next` found.
    pub(crate) packet: Vec<u8>,
    /// What is left of the page: packets with whether they end here.
    page: VecDeque<(Vec<u8>, bool)>,
    /// Number of the page.
    sequence: u32,
    wrong_pages: u32,
    /// Whether the page is marked as the last one of its stream.
    is_last: bool,
    /// Whether the file ends within a page or a packet.
    pub(crate) is_cut: bool,
    /// Whether pages of this stream are missing.
    pub(crate) has_gap: bool,
    /// Whether the last page of the stream that ended was there.
    pub(crate) is_finished: bool,
}

impl Packets {
    pub(crate) fn new(window: Window) -> Self {
        Self {
            window,
            offset: 0,
            serial: None,
            packet: Vec::new(),
            page: VecDeque::new(),
            sequence: 0,
            wrong_pages: 0,
            is_last: false,
            is_cut: false,
            has_gap: false,
            is_finished: false,
        }
    }

    /// Moves to the next packet. Returns whether it is the first one of a
    /// stream; None at the end.
    pub(crate) fn next(&mut self) -> Result<Option<bool>, Fault> {
        self.packet.clear();
        let mut is_open = false;
        loop {
            while let Some((piece, ends)) = self.page.pop_front() {
                self.packet.extend_from_slice(&piece);
                is_open = !ends;
                if self.packet.len() > LONGEST_PACKET {
                    return Err(Fault::damaged("damaged: a packet has no end"));
                }
                if ends {
                    return Ok(Some(self.packet.starts_with(b"\x7FFLAC")));
                }
            }
            let Some(flags) = self.read_page()? else {
                self.is_cut |= is_open;
                self.is_finished = self.is_last;
                return Ok(None);
            };
            // Without the page before, or the one between, a packet is not whole.
            let goes_on = flags & CONTINUED != 0;
            if is_open && !goes_on {
                self.packet.clear();
                is_open = false;
            } else if goes_on && !is_open {
                self.page.pop_front();
            }
        }
    }

    /// Reads the next page of a FLAC stream, and returns its flags; None at the end.
    fn read_page(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            let Some(head) = self.window.array::<PAGE_HEAD>(self.offset)? else {
                self.is_cut |= self.window.starts_with(self.offset, MAGIC)?;
                return Ok(None);
            };
            let segments = usize::from(head[26]);
            let page = self.window.get(self.offset, PAGE_HEAD + segments)?;
            let table = page.get(PAGE_HEAD..).unwrap_or_default();
            let content: usize = table.iter().map(|&length| usize::from(length)).sum();
            let length = PAGE_HEAD + segments + content;
            if !self.is_page(length)? {
                let is_cut =
                    head.starts_with(MAGIC) && self.offset + length as u64 > self.window.size();
                if !self.find_page()? {
                    self.is_cut |= is_cut;
                    return Ok(None);
                }
                continue;
            }
            let page = self.window.get(self.offset, length)?.to_vec();
            self.offset += length as u64;
            let (table, bytes) = page[PAGE_HEAD..].split_at(segments);
            if self.take(head, bytes) {
                self.page = split(table, bytes);
                return Ok(Some(head[5]));
            }
        }
    }

    /// Whether a page of this length is here. If another one follows, its checksum need not be
    /// right, because FLAC frames have checksums of their own.
    fn is_page(&mut self, length: usize) -> Result<bool, Fault> {
        let end = self.offset + length as u64;
        if !self.window.starts_with(self.offset, MAGIC)? || end > self.window.size() {
            return Ok(false);
        }
        let bytes = self.window.get(self.offset, length + MAGIC.len())?;
        let page = bytes.get(..length).unwrap_or_default();
        if bytes.ends_with(MAGIC) && bytes.len() > length {
            return Ok(true);
        }
        let is_page = self.wrong_pages < MOST_WRONG_PAGES && has_checksum(page);
        self.wrong_pages += u32::from(!is_page);
        Ok(is_page)
    }

    /// Returns whether a page belongs to a FLAC stream, and takes note of it.
    fn take(&mut self, head: [u8; PAGE_HEAD], bytes: &[u8]) -> bool {
        let serial = [head[14], head[15], head[16], head[17]];
        let sequence = u32::from_le_bytes([head[18], head[19], head[20], head[21]]);
        if head[5] & FIRST != 0 && bytes.starts_with(b"\x7FFLAC") {
            self.serial = Some(serial);
            self.is_finished = self.is_last;
            self.has_gap = false;
        } else if self.serial == Some(serial) {
            self.has_gap |= sequence != self.sequence.wrapping_add(1);
        } else {
            return false;
        }
        self.sequence = sequence;
        self.is_last = head[5] & LAST != 0;
        true
    }

    /// Moves to the next thing that looks like a page; false if there is none.
    fn find_page(&mut self) -> Result<bool, Fault> {
        const STEP: usize = 1 << 16;
        self.offset += 1;
        while self.offset < self.window.size() {
            let bytes = self.window.get(self.offset, STEP + MAGIC.len())?;
            if let Some(at) = memchr::memmem::find(bytes, MAGIC) {
                self.offset += at as u64;
                return Ok(true);
            }
            self.offset += STEP as u64;
        }
        Ok(false)
    }
}

/// Splits a page by its table of segments.
fn split(table: &[u8], bytes: &[u8]) -> VecDeque<(Vec<u8>, bool)> {
    let (mut pieces, mut start, mut end) = (VecDeque::new(), 0, 0);
    for &length in table {
        end += usize::from(length);
        if length < 255 {
            pieces.push_back((bytes[start..end].to_vec(), true));
            start = end;
        }
    }
    if start < end {
        pieces.push_back((bytes[start..end].to_vec(), false));
    }
    pieces
}

fn has_checksum(page: &[u8]) -> bool {
    const POLYNOMIAL: u32 = 0x04C1_1DB7;
    let stated = 22..26;
    let sum = page.iter().enumerate().fold(0_u32, |sum, (at, &byte)| {
        let byte = if stated.contains(&at) { 0 } else { byte };
        (0..8).fold(sum ^ u32::from(byte) << 24, |sum, _| {
            sum << 1 ^ if sum >> 31 == 1 { POLYNOMIAL } else { 0 }
        })
    });
    page[stated] == sum.to_le_bytes()
}
