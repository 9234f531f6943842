//! One FLAC stream, native or in Ogg: what its header says, and what was decoded of it.

use crate::codec::{words, Codec};
use crate::decoder::Format;
use crate::fault::Fault;
use crate::flac_frame::FrameHeader;

pub(crate) const STREAM_INFO_BYTES: usize = 34;

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
            return Err(Fault::damaged_after(self.decoded, "frames are missing"));
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

/// A stream, with its decoder.
pub(crate) struct Part {
    pub(crate) info: StreamInfo,
    /// From the first frame on.
    codec: Option<Codec>,
    pub(crate) progress: Progress,
}

impl Part {
    pub(crate) fn new(info: StreamInfo) -> Self {
        Self {
            progress: Progress::new(&info),
            codec: None,
            info,
        }
    }

    /// A part behind another one, whose codec it takes over if it can: frames do not depend on
    /// each other, and to make one takes longer than to decode a short part.
    pub(crate) fn behind(before: &mut Self, info: StreamInfo) -> Self {
        let is_alike = before.info.format == info.format && before.info.bits == info.bits;
        Self {
            codec: before.codec.take().filter(|_| is_alike),
            ..Self::new(info)
        }
    }

    pub(crate) fn codec(&mut self) -> Result<&mut Codec, Fault> {
        let codec = match self.codec.take() {
            Some(codec) => codec,
            None => self.info.codec()?,
        };
        Ok(self.codec.insert(codec))
    }

    /// Returns the header of the frame that `bytes` begins with, if it is one of this stream.
    pub(crate) fn header(&self, bytes: &[u8]) -> Option<FrameHeader> {
        FrameHeader::parse(bytes).filter(|header| header.fits(&self.info))
    }

    /// Decodes a frame.
    ///
    /// # Errors
    ///
    /// If it cannot be decoded, or frames are missing before it.
    pub(crate) fn decode(
        &mut self,
        header: &FrameHeader,
        bytes: &[u8],
        samples: &mut Vec<f32>,
    ) -> Result<(), Fault> {
        let before = self.progress.decoded;
        self.progress.add(header)?;
        match self.codec()?.decode(bytes) {
            Ok((decoded, _)) => samples.extend_from_slice(decoded),
            Err(error) => {
                let what = format!("decoding fails ({})", words(&error));
                return Err(Fault::damaged_after(before, &what));
            }
        }
        Ok(())
    }
}
