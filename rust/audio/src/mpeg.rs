//! MPEG audio, layers 1 to 3: frame after frame to the end, whatever a header
//! says about their number.

use crate::codec::{Codec, Codecs};
use crate::decoder::{Format, Stream};
use crate::fault::Fault;
use crate::frames::{Frames, Header};
use crate::tags::behind_tags;
use crate::window::Window;

/// Samples by which the decoder itself is late.
const DECODER_DELAY: u64 = 528 + 1;

#[derive(Clone, Copy)]
pub(crate) struct MpegHeader {
    /// The bits that stay the same within a stream: version, layer and rate.
    identity: u32,
    is_mpeg1: bool,
    layer: u8,
    format: Format,
    length: u64,
}

impl Header for MpegHeader {
    const LENGTH: usize = 4;

    fn parse(bytes: &[u8]) -> Option<Self> {
        const HIGH: [u32; 3] = [448, 384, 320];
        const RATES: [[u32; 15]; 5] = [
            [
                0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, HIGH[0],
            ],
            [
                0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, HIGH[1],
            ],
            [
                0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, HIGH[2],
            ],
            [
                0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256,
            ],
            [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ];
        let word = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
        let version = word >> 19 & 3;
        let layer = 4 - (word >> 17 & 3);
        if word >> 21 != 0x7FF || version == 1 || layer == 4 {
            return None;
        }
        let is_mpeg1 = version == 3;
        let table = match (is_mpeg1, layer) {
            (true, layer) => layer as usize - 1,
            (false, 1) => 3,
            (false, _) => 4,
        };
        // Index 0 is "free format", whose frame length is not stated.
        let kbps = RATES[table].get((word >> 12 & 15) as usize).copied()?;
        let base = [44_100, 48_000, 32_000].get((word >> 10 & 3) as usize)?;
        let sample_rate = base >> [2, 0, 1, 0][version as usize];
        if kbps == 0 {
            return None;
        }
        let padding = word >> 9 & 1;
        let length = match layer {
            1 => (12_000 * kbps / sample_rate + padding) * 4,
            3 if !is_mpeg1 => 72_000 * kbps / sample_rate + padding,
            _ => 144_000 * kbps / sample_rate + padding,
        };
        let channels = if word >> 6 & 3 == 3 { 1 } else { 2 };
        Some(Self {
            identity: word & 0xFFFE_0C00,
            is_mpeg1,
            layer: layer as u8,
            format: Format {
                sample_rate,
                channels,
            },
            length: u64::from(length),
        })
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn is_like(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl MpegHeader {
    /// Frames of samples in this MPEG frame.
    fn samples(&self) -> u64 {
        match self.layer {
            1 => 384,
            3 if !self.is_mpeg1 => 576,
            _ => 1152,
        }
    }

    fn side_info_length(&self) -> usize {
        match (self.is_mpeg1, self.format.channels) {
            (true, 1) | (false, 2) => 17,
            (true, _) => 32,
            (false, _) => 9,
        }
    }
}

/// What the header frame of an encoder says about the frames that follow.
#[derive(Clone, Copy, Default)]
struct Info {
    /// Number of samples, if it is stated.
    samples: Option<u64>,
    /// Samples to leave out at the start and at the end.
    delay: u64,
    padding: u64,
}

impl Info {
    /// Returns the content of a Xing, Info or VBRI frame; None for one with sound.
    fn parse(header: &MpegHeader, bytes: &[u8]) -> Option<Self> {
        if header.layer != 3 {
            return None;
        }
        let word = |at: usize| -> Option<u32> {
            let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes))
        };
        let samples = |count: u32| Some(u64::from(count) * header.samples());
        if bytes.get(36..40)? == b"VBRI" {
            return Some(Self {
                samples: samples(word(36 + 14)?),
                ..Self::default()
            });
        }
        let tag = 4 + header.side_info_length();
        if !matches!(bytes.get(tag..tag + 4)?, b"Xing" | b"Info") {
            return None;
        }
        let flags = word(tag + 4)?;
        let mut info = Self::default();
        if flags & 1 != 0 {
            info.samples = samples(word(tag + 8)?).filter(|&count| count > 0);
        }
        let fields = [(1, 4), (2, 4), (4, 100), (8, 4)];
        let lame = fields
            .iter()
            .filter(|(flag, _)| flags & flag != 0)
            .fold(tag + 8, |at, (_, length)| at + length);
        if let Some(b"LAME" | b"Lavf" | b"Lavc") = bytes.get(lame..lame + 4) {
            let trim = u64::from(word(lame + 20)? & 0x00FF_FFFF);
            info.delay = (trim >> 12) + DECODER_DELAY;
            info.padding = (trim & 0xFFF).saturating_sub(DECODER_DELAY);
        }
        Some(info)
    }

    /// Frames of sound that are promised.
    fn frames(&self) -> Option<u64> {
        Some(self.samples?.saturating_sub(self.delay + self.padding))
    }
}

/// What was decoded since the last [`Info`].
#[derive(Default)]
struct Part {
    info: Info,
    /// Samples that were decoded, and those of them that are used.
    decoded: u64,
    used: u64,
}

impl Part {
    /// Appends what the encoder's header leaves of decoded samples.
    fn keep(&mut self, decoded: &[f32], channels: usize, to: &mut Vec<f32>) {
        let count = (decoded.len() / channels) as u64;
        let at = self.decoded;
        self.decoded += count;
        let (pad_start, pad_end) = match self.info.samples {
            Some(samples) => (samples.saturating_sub(self.info.padding), samples),
            None => (u64::MAX, u64::MAX),
        };
        let inside = |position: u64| position.clamp(at, at + count) - at;
        let ranges = [
            (inside(self.info.delay), inside(pad_start)),
            (inside(pad_end.max(self.info.delay)), count),
        ];
        for (from, until) in ranges {
            if from < until {
                to.extend_from_slice(&decoded[from as usize * channels..until as usize * channels]);
                self.used += until - from;
            }
        }
    }
}

/// A file of MPEG audio. Each part of joined files has its own [`Info`].
pub(crate) struct Mpeg {
    frames: Frames<MpegHeader>,
    first: MpegHeader,
    promised: Option<u64>,
    next: Option<(MpegHeader, u64)>,
    codecs: Codecs<(u8, Format)>,
    part: Part,
    /// Frames that cannot be decoded, of all.
    broken: u64,
    count: u64,
    fault: Option<Fault>,
}

impl Mpeg {
    pub(crate) fn open(mut window: Window) -> Result<Self, Fault> {
        let start = behind_tags(&mut window, 0)?;
        let (start, end) = match window.starts_with(start, b"RIFF")? {
            true => riff_data(&mut window, start)?,
            false => (0, window.size()),
        };
        let mut frames = Frames::new(window, start, end);
        let Some((first, offset)) = frames.next()? else {
            return match is_free_format(&mut frames.window, start)? {
                true => Err(Fault::not_decodable(
                    "is free-format MP3, which distill does not read",
                )),
                false => Err(Fault::NotForMe),
            };
        };
        let info = Info::parse(&first, frames.bytes(&first, offset)?);
        Ok(Self {
            frames,
            first,
            promised: info.and_then(|info| info.frames()),
            next: Some((first, offset)),
            codecs: Codecs::new(),
            part: Part::default(),
            broken: 0,
            count: 0,
            fault: None,
        })
    }

    /// Compares a part with what its header promises.
    fn end_part(&mut self) {
        if let Some(promised) = self.part.info.frames() {
            if self.part.used < promised && self.fault.is_none() {
                self.fault = Some(Fault::missing_frames(promised, self.part.used));
            }
        }
    }

    fn end(&mut self) -> Result<Option<Format>, Fault> {
        self.end_part();
        let promised = self.part.info.frames();
        if promised.is_some_and(|promised| self.part.used >= promised) {
            self.frames.ignore_tail();
        }
        if self.broken > 0 {
            if self.broken == self.count {
                return Err(Fault::no_frame());
            }
            let text = format!(
                "damaged: {} of its {} MPEG frames cannot be decoded",
                self.broken, self.count
            );
            return Err(Fault::damaged(text));
        }
        let fault = match self.frames.are_damaged() {
            true => self.frames.fault(),
            false => self.fault.take().or(self.frames.fault()),
        };
        fault.map_or(Ok(None), Err)
    }
}

impl Stream for Mpeg {
    fn format(&self) -> Format {
        self.first.format
    }

    fn frames(&self) -> Option<u64> {
        self.promised
    }

    fn next(&mut self, samples: &mut Vec<f32>) -> Result<Option<Format>, Fault> {
        let next = match self.next.take() {
            Some((first, offset)) => {
                self.frames.window.catch_up(offset)?;
                Some((first, offset))
            }
            None => self.frames.next()?,
        };
        let Some((header, offset)) = next else {
            return self.end();
        };
        let bytes = self.frames.bytes(&header, offset)?;
        if let Some(info) = Info::parse(&header, bytes) {
            self.end_part();
            self.codecs.reset();
            self.part = Part {
                info,
                ..Part::default()
            };
            return Ok(Some(header.format));
        }
        self.count += 1;
        let format = (header.layer, header.format);
        let codec = self.codecs.get(format, || Codec::mpeg(header.layer))?;
        match codec.decode(bytes) {
            Ok((decoded, _)) => self.part.keep(decoded, header.format.channels, samples),
            Err(_) => self.broken += 1,
        }
        Ok(Some(header.format))
    }
}

/// Whether a frame begins at `start` whose header leaves out the bit rate, and with it the length.
fn is_free_format(window: &mut Window, start: u64) -> Result<bool, Fault> {
    const ANY_RATE: u8 = 1 << 4;
    let Some(mut head) = window.array::<{ MpegHeader::LENGTH }>(start)? else {
        return Ok(false);
    };
    let is_free = head[2] >> 4 == 0;
    head[2] |= ANY_RATE;
    Ok(is_free && MpegHeader::parse(&head).is_some())
}

/// Returns where the frames of a RIFF file with MPEG audio start and end.
fn riff_data(window: &mut Window, start: u64) -> Result<(u64, u64), Fault> {
    let mut offset = start + 12;
    let mut is_mpeg = false;
    while let Some(head) = window.array::<8>(offset)? {
        let size = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        let content = offset + 8;
        match &head[..4] {
            b"fmt " => {
                let tag = window.array::<2>(content)?.map(u16::from_le_bytes);
                is_mpeg = matches!(tag, Some(0x50 | 0x55));
            }
            // A recorder that crashed leaves 0 here.
            b"data" if is_mpeg && size == 0 => return Ok((content, window.size())),
            b"data" if is_mpeg => return Ok((content, content + size)),
            b"data" => return Err(Fault::NotForMe),
            _ => {}
        }
        offset = content + size + size % 2;
    }
    Err(Fault::NotForMe)
}
