//! Sound in packets whose places a container lists.

use std::collections::VecDeque;

use symphonia::core::errors::Error;

use crate::aac;
use crate::codec::{words, Codec};
use crate::decoder::{Format, Stream};
use crate::fault::Fault;
use crate::window::Window;

/// No packet of AAC or ALAC is longer.
const LONGEST_PACKET: u32 = 16 << 20;

/// Where a packet is in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// The packets of a track, in order.
pub(crate) trait Places: Send {
    fn next(&mut self, window: &mut Window) -> Result<Option<Place>, Fault>;
}

/// What a track is coded with.
pub(crate) enum Coding {
    Aac(Format),
    /// With its configuration.
    Alac(Vec<u8>),
}

/// Which of the decoded frames are the sound.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trim {
    /// Frames to leave out at the start.
    pub(crate) skip: u64,
    /// Frames of the sound, if they are stated.
    pub(crate) frames: Option<u64>,
    /// Whether what is behind these frames is left out, too.
    pub(crate) is_cut: bool,
}

/// A track.
pub(crate) struct Packets {
    window: Window,
    places: Box<dyn Places>,
    /// Packets that were looked at when the file was opened, and why there is no other.
    ahead: VecDeque<Result<Place, Fault>>,
    codec: Codec,
    name: &'static str,
    format: Format,
    trim: Trim,
    skipped: u64,
    used: u64,
    /// Bytes of all packets so far; no byte belongs to two of them.
    bytes: u64,
}

impl Packets {
    pub(crate) fn open(
        mut window: Window,
        mut places: Box<dyn Places>,
        coding: Coding,
        trim: Trim,
    ) -> Result<Self, Fault> {
        let mut ahead = VecDeque::new();
        let (codec, name, format) = match coding {
            Coding::Aac(format) => {
                let mut probe = aac::Probe::default();
                while let Some(place) = places.next(&mut window).transpose() {
                    // Damage counts when the frames before it have been decoded.
                    let packet = place.as_ref().ok().map(|&place| read(&mut window, place));
                    let is_done = match packet {
                        Some(Ok(packet)) => probe.is_done(format, packet)?,
                        _ => true,
                    };
                    ahead.push_back(place);
                    if is_done {
                        break;
                    }
                }
                probe.end()?;
                (Codec::aac(format)?, "AAC", format)
            }
            Coding::Alac(cookie) => {
                let codec = Codec::alac(&cookie)?;
                let format = codec.format().filter(|format| format.sample_rate > 0);
                let Some(format) = format else {
                    return Err(Fault::damaged("damaged: its ALAC configuration is invalid"));
                };
                (codec, "ALAC", format)
            }
        };
        Ok(Self {
            window,
            places,
            ahead,
            codec,
            name,
            format,
            trim,
            skipped: 0,
            used: 0,
            bytes: 0,
        })
    }

    fn end(&self) -> Result<Option<Format>, Fault> {
        match self.trim.frames {
            Some(promised) if self.used < promised => {
                Err(Fault::missing_frames(promised, self.used))
            }
            _ => Ok(None),
        }
    }
}

/// Returns the packet, or what the file has of it.
fn read(window: &mut Window, place: Place) -> Result<&[u8], Fault> {
    if place.length > LONGEST_PACKET {
        return Err(Fault::damaged(
            "damaged: the sizes of its packets are wrong",
        ));
    }
    Ok(window.get(place.offset, place.length as usize)?)
}

impl Stream for Packets {
    fn format(&self) -> Format {
        self.format
    }

    fn frames(&self) -> Option<u64> {
        self.trim.frames
    }

    fn next(&mut self, samples: &mut Vec<f32>) -> Result<Option<Format>, Fault> {
        if self.trim.is_cut && self.trim.frames == Some(self.used) {
            return Ok(None);
        }
        let place = match self.ahead.pop_front() {
            Some(place) => Some(place?),
            None => self.places.next(&mut self.window)?,
        };
        let Some(place) = place else {
            return self.end();
        };
        if self.bytes == 0 {
            self.window.catch_up(place.offset)?;
        }
        let size = self.window.size();
        let packet = read(&mut self.window, place)?;
        if packet.len() < place.length as usize {
            self.end()?;
            return Err(Fault::cut_short(format!(
                "cut short: {} frames can be decoded",
                self.used
            )));
        }
        self.bytes += u64::from(place.length.max(1));
        if self.bytes > size {
            return Err(Fault::damaged(
                "damaged: the sizes of its packets are wrong",
            ));
        }
        if packet.is_empty() {
            return Ok(Some(self.format));
        }
        let (decoded, format) = match self.codec.decode(packet) {
            Ok(decoded) => decoded,
            Err(Error::Unsupported(text)) if self.used == 0 => {
                let text = text.trim_start_matches("aac: ");
                return Err(Fault::needs_ffmpeg(&format!("{} with {text}", self.name)));
            }
            Err(error) => {
                let what = format!("decoding fails ({})", words(&error));
                return Err(Fault::damaged_after(self.used, &what));
            }
        };
        let count = (decoded.len() / format.channels) as u64;
        let from = (self.trim.skip - self.skipped).min(count);
        self.skipped += from;
        let mut until = count;
        if let (true, Some(frames)) = (self.trim.is_cut, self.trim.frames) {
            until = until.min(from + frames - self.used);
        }
        self.used += until - from;
        samples.extend_from_slice(
            &decoded[from as usize * format.channels..until as usize * format.channels],
        );
        Ok(Some(format))
    }
}
