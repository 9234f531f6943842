//! A file as blocks of samples, whatever its format.

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use crate::fault::Fault;
use crate::window::{Input, Window};
use crate::{adts, caf, flac, mp4, mpeg, ogg_flac};

/// Frames in a block, unless the format changes or the sound ends.
const BLOCK_FRAMES: usize = 1 << 16;

/// Formats that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MPEG audio, layers 1 to 3, also inside RIFF.
    Mpeg,
    /// AAC-LC as a bare stream.
    Adts,
    /// AAC-LC or ALAC in MP4 or QuickTime.
    Mp4,
    /// FLAC.
    Flac,
    /// FLAC in Ogg.
    OggFlac,
    /// AAC-LC or ALAC in CAF.
    Caf,
}

/// Sample rate and number of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Hz.
    pub sample_rate: u32,
    /// At least 1.
    pub channels: usize,
}

/// Consecutive frames of one format.
#[derive(Debug)]
pub struct Block {
    /// Interleaved, full scale is ±1.
    pub samples: Vec<f32>,
    /// What they are.
    pub format: Format,
}

/// One format's decoder.
pub(crate) trait Stream: Send {
    /// Format of the first part.
    fn format(&self) -> Format;
    /// Number of frames that the headers promise.
    fn frames(&self) -> Option<u64>;
    /// Appends some frames, interleaved; None at the end. After an error, it is not called again.
    fn next(&mut self, samples: &mut Vec<f32>) -> Result<Option<Format>, Fault>;
}

/// An open file.
pub struct Decoder {
    stream: Box<dyn Stream>,
    /// What was decoded, and does not belong to the block before.
    pending: Vec<f32>,
    pending_format: Format,
    ended: bool,
    fault: Option<Fault>,
}

impl Decoder {
    /// Opens a file of a known kind.
    ///
    /// # Errors
    ///
    /// If it cannot be decoded; [`Fault::NotForMe`] if it is no file of this kind.
    pub fn open(input: Box<dyn Input>, kind: Kind) -> Result<Self, Fault> {
        let stream = guarded(|| -> Result<Box<dyn Stream>, Fault> {
            let window = Window::new(input);
            Ok(match kind {
                Kind::Mpeg => Box::new(mpeg::Mpeg::open(window)?),
                Kind::Adts => Box::new(adts::Adts::open(window)?),
                Kind::Mp4 => Box::new(mp4::open(window)?),
                Kind::Flac => Box::new(flac::Flac::open(window)?),
                Kind::OggFlac => Box::new(ogg_flac::OggFlac::open(window)?),
                Kind::Caf => Box::new(caf::open(window)?),
            })
        })?;
        Ok(Self {
            pending: Vec::new(),
            pending_format: stream.format(),
            stream,
            ended: false,
            fault: None,
        })
    }

    /// Format of the first part.
    pub fn format(&self) -> Format {
        self.stream.format()
    }

    /// Number of frames as the headers promise it, never an estimate.
    pub fn frames(&self) -> Option<u64> {
        self.stream.frames()
    }

    /// Returns the next frames, or None at the end.
    ///
    /// # Errors
    ///
    /// After the last good frame, if there are others that cannot be decoded.
    pub fn next_block(&mut self) -> Result<Option<Block>, Fault> {
        let mut samples = std::mem::take(&mut self.pending);
        let mut format = self.pending_format;
        samples.reserve(BLOCK_FRAMES * format.channels);
        while !self.ended && samples.len() < BLOCK_FRAMES * format.channels {
            let before = samples.len();
            match guarded(|| self.stream.next(&mut samples)) {
                Ok(Some(next)) if before == 0 => format = next,
                Ok(Some(next)) if next != format => {
                    self.pending = samples.split_off(before);
                    self.pending_format = next;
                    if !self.pending.is_empty() {
                        break;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => self.ended = true,
                Err(fault) => {
                    samples.truncate(before);
                    self.ended = true;
                    self.fault = Some(fault);
                }
            }
        }
        if samples.is_empty() {
            return self.fault.take().map_or(Ok(None), Err);
        }
        if self.pending.is_empty() {
            self.pending_format = format;
        }
        Ok(Some(Block { samples, format }))
    }
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder. On some damaged files decoders panic, which counts as damage,
/// and is not worth a message on standard error.
fn guarded<T>(run: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // While testing, only the panics of the codecs are expected.
            let file = info.location().map_or("", |location| location.file());
            if !IS_QUIET.get() || (cfg!(debug_assertions) && !file.contains("symphonia")) {
                before(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_QUIET.set(false);
    result.unwrap_or_else(|_| {
        Err(Fault::damaged(
            "damaged: its content breaks the rules of its format",
        ))
    })
}
