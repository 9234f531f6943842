//! AAC as a bare stream of ADTS frames.

use crate::aac;
use crate::codec::{words, Codec, Codecs};
use crate::decoder::{Format, Stream};
use crate::fault::Fault;
use crate::frames::{Frames, Header};
use crate::window::Window;

#[derive(Clone, Copy)]
pub(crate) struct AdtsHeader {
    profile: u8,
    format: Format,
    configuration: u8,
    length: u64,
    /// With the checksum.
    header_length: usize,
    /// Blocks of samples in the frame, less one.
    more_blocks: u8,
}

impl Header for AdtsHeader {
    const LENGTH: usize = 7;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 7] = bytes.get(..7)?.try_into().ok()?;
        if bytes[0] != 0xFF || bytes[1] & 0xF6 != 0xF0 {
            return None;
        }
        let sample_rate = aac::sample_rate(bytes[2] >> 2 & 15)?;
        let configuration = bytes[2] << 2 & 4 | bytes[3] >> 6;
        let length =
            u64::from(bytes[3] & 3) << 11 | u64::from(bytes[4]) << 3 | u64::from(bytes[5]) >> 5;
        let header_length = if bytes[1] & 1 == 0 { 9 } else { 7 };
        (length > header_length).then_some(Self {
            profile: bytes[2] >> 6,
            format: Format {
                sample_rate,
                channels: aac::channels(configuration),
            },
            configuration,
            length,
            header_length: header_length as usize,
            more_blocks: bytes[6] & 3,
        })
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn is_like(&self, other: &Self) -> bool {
        self.profile == other.profile
            && self.format.sample_rate == other.format.sample_rate
            && self.configuration == other.configuration
    }
}

/// A file of ADTS frames. Each part of joined files may have another format.
pub(crate) struct Adts {
    frames: Frames<AdtsHeader>,
    format: Format,
    codecs: Codecs<Format>,
    broken: u64,
    count: u64,
}

impl Adts {
    pub(crate) fn open(window: Window) -> Result<Self, Fault> {
        let size = window.size();
        let mut frames = Frames::<AdtsHeader>::new(window, 0, size);
        let mut first = None;
        let mut probe = aac::Probe::default();
        // The frames that are looked at are decoded later, from the start.
        while let Some((header, offset)) = frames.next()? {
            match first {
                None => check(&header)?,
                // Damage counts when the frames before it have been decoded.
                Some(_) if check(&header).is_err() => break,
                Some(_) => {}
            }
            first.get_or_insert((header, offset));
            let bytes = frames.bytes(&header, offset)?;
            if probe.is_done(
                header.format,
                &bytes[header.header_length.min(bytes.len())..],
            )? {
                break;
            }
        }
        let Some((header, offset)) = first else {
            return Err(Fault::NotForMe);
        };
        probe.end()?;
        Ok(Self {
            frames: Frames::new(frames.window, offset, size),
            format: header.format,
            codecs: Codecs::new(),
            broken: 0,
            count: 0,
        })
    }
}

fn check(header: &AdtsHeader) -> Result<(), Fault> {
    match (header.profile, header.more_blocks, header.configuration) {
        (1, 0, 1 | 2) => Ok(()),
        (1, 0, 0) => Err(Fault::needs_ffmpeg("AAC with its own channel layout")),
        (1, 0, _) => Err(Fault::needs_ffmpeg(&format!(
            "AAC with {} channels",
            header.format.channels
        ))),
        (1, ..) => Err(Fault::needs_ffmpeg("AAC with several blocks a frame")),
        (profile, ..) => Err(Fault::needs_ffmpeg(aac::object_name(profile + 1))),
    }
}

impl Stream for Adts {
    fn format(&self) -> Format {
        self.format
    }

    fn frames(&self) -> Option<u64> {
        None
    }

    fn next(&mut self, samples: &mut Vec<f32>) -> Result<Option<Format>, Fault> {
        let Some((header, offset)) = self.frames.next()? else {
            if self.broken > 0 {
                let (broken, count) = (self.broken, self.count);
                if broken == count {
                    return Err(Fault::no_frame());
                }
                let text = format!("damaged: {broken} of its {count} frames cannot be decoded");
                return Err(Fault::damaged(text));
            }
            return self.frames.fault().map_or(Ok(None), Err);
        };
        if self.count == 0 {
            self.frames.window.catch_up(offset)?;
        }
        check(&header)?;
        self.count += 1;
        let bytes = self.frames.bytes(&header, offset)?;
        let packet = &bytes[header.header_length.min(bytes.len())..];
        let codec = self
            .codecs
            .get(header.format, || Codec::aac(header.format))?;
        match codec.decode(packet) {
            Ok((decoded, _)) => samples.extend_from_slice(decoded),
            Err(error @ symphonia::core::errors::Error::Unsupported(_)) => {
                return Err(Fault::needs_ffmpeg(&format!("AAC with {}", words(&error))))
            }
            Err(_) => self.broken += 1,
        }
        Ok(Some(header.format))
    }
}
