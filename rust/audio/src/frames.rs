//! Finds the frames of a stream that has no container: MPEG audio and ADTS.

use std::io;

use crate::fault::Fault;
use crate::tags::{content_bytes, tag_length, TAIL_BYTES};
use crate::window::Window;

/// Bytes that are searched for the first frame.
const SEARCHED_BYTES: u64 = 1 << 20;
/// Frames in a row that make a start.
const RUN: usize = 3;

/// What a frame's header says.
pub(crate) trait Header: Copy {
    /// Bytes that `parse` needs.
    const LENGTH: usize;
    fn parse(bytes: &[u8]) -> Option<Self>;
    /// Length of the frame with its header, bytes.
    fn length(&self) -> u64;
    /// Whether both may be frames of one stream.
    fn is_like(&self, other: &Self) -> bool;
}

/// Moves from frame to frame, over tags and over what is no frame.
pub(crate) struct Frames<H> {
    pub(crate) window: Window,
    end: u64,
    offset: u64,
    last: Option<H>,
    /// Bytes between the frames that are neither frame nor tag.
    lost: u64,
    /// Bytes behind the last frame that are neither tag nor zeros.
    tail: u64,
    /// Bytes of an incomplete frame at the end.
    cut: u64,
}

impl<H: Header> Frames<H> {
    /// Frames of the bytes from `start` to `end`.
    pub(crate) fn new(window: Window, start: u64, end: u64) -> Self {
        Self {
            end: end.min(window.size()),
            window,
            offset: start,
            last: None,
            lost: 0,
            tail: 0,
            cut: 0,
        }
    }

    /// Returns header and offset of the next frame, and moves behind it.
    pub(crate) fn next(&mut self) -> io::Result<Option<(H, u64)>> {
        if let Some(last) = self.last {
            if let Some(header) = self.header(self.offset)? {
                if header.is_like(&last) {
                    return self.take(header);
                }
            }
        }
        match self.find()? {
            Some(header) => self.take(header),
            None => Ok(None),
        }
    }

    fn take(&mut self, header: H) -> io::Result<Option<(H, u64)>> {
        let offset = self.offset;
        if offset + header.length() > self.end {
            self.cut = self.end - offset;
            self.offset = self.end;
            return Ok(None);
        }
        self.offset += header.length();
        self.last = Some(header);
        Ok(Some((header, offset)))
    }

    pub(crate) fn bytes(&mut self, header: &H, offset: u64) -> io::Result<&[u8]> {
        let length = usize::try_from(header.length()).unwrap_or(usize::MAX);
        self.window.get(offset, length)
    }

    /// Whether there are bytes between the frames that cannot be decoded.
    pub(crate) fn are_damaged(&self) -> bool {
        self.lost > 0
    }

    /// What is missing, once `next` has returned None.
    pub(crate) fn fault(&self) -> Option<Fault> {
        if self.lost > 0 {
            let text = format!(
                "damaged: {} bytes between its frames cannot be decoded",
                self.lost
            );
            return Some(Fault::damaged(text));
        }
        if self.tail > TAIL_BYTES {
            let text = format!(
                "damaged: {} bytes behind its last frame cannot be decoded",
                self.tail
            );
            return Some(Fault::damaged(text));
        }
        (self.cut > 0).then(|| Fault::cut_short("cut short: its last frame is incomplete"))
    }

    /// Says that the frames so far are all that there should be.
    pub(crate) fn ignore_tail(&mut self) {
        self.tail = 0;
    }

    fn header(&mut self, offset: u64) -> io::Result<Option<H>> {
        if offset + H::LENGTH as u64 > self.end {
            return Ok(None);
        }
        Ok(H::parse(self.window.get(offset, H::LENGTH)?))
    }

    /// Moves to the next frame that others follow.
    fn find(&mut self) -> io::Result<Option<H>> {
        let (mut skipped, mut content) = (0, 0);
        loop {
            if let Some(length) = self.tag_length()? {
                self.offset += length;
            } else if self.offset + H::LENGTH as u64 > self.end {
                if self.last.is_some() {
                    self.tail = content;
                }
                return Ok(None);
            } else if let Some(header) = self.run_at(self.offset)? {
                if self.last.is_some() {
                    self.lost += skipped;
                }
                return Ok(Some(header));
            } else {
                let (step, filled) = self.next_sync()?;
                skipped += step;
                content += filled;
                self.offset += step;
                if self.last.is_none() && skipped > SEARCHED_BYTES {
                    return Ok(None);
                }
            }
        }
    }

    /// Length of the tag at the current position. What is said to be longer than the file is none.
    fn tag_length(&mut self) -> io::Result<Option<u64>> {
        let length = tag_length(&mut self.window, self.offset)?;
        Ok(length.filter(|length| length <= &self.end.saturating_sub(self.offset)))
    }

    /// Bytes to the next one that may start a frame or a tag, and how many of them are not 0.
    fn next_sync(&mut self) -> io::Result<(u64, u64)> {
        let bytes = self.window.get(self.offset, 4096)?;
        let rest = bytes.get(1..).unwrap_or_default();
        let found = rest
            .iter()
            .position(|byte| matches!(byte, 0xFF | b'I' | b'T' | b'A' | b'L'));
        let step = 1 + found.unwrap_or(rest.len());
        let filled = content_bytes(&bytes[..step.min(bytes.len())]);
        Ok((step as u64, filled))
    }

    /// Returns the header at `offset`, if it begins a run of frames, or the last ones.
    fn run_at(&mut self, offset: u64) -> io::Result<Option<H>> {
        let Some(first) = self.header(offset)? else {
            return Ok(None);
        };
        let mut next = offset;
        let mut header = first;
        for _ in 1..RUN {
            next += header.length();
            if next == self.end || tag_length(&mut self.window, next)?.is_some() {
                break;
            }
            match self.header(next)? {
                Some(found) if found.is_like(&first) => header = found,
                _ => return Ok(None),
            }
        }
        Ok(Some(first))
    }
}
