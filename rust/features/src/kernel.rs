//! The kernel: computes both channels of clips.
//!
//! Let `R` be the spectrum of the unwindowed frame. In the frequency domain the
//! periodic Hann window is a three-point stencil, and so is its derivative, which
//! gives the reassigned frequency (Auger and Flandrin 1995):
//!
//! ```text
//! 4 X[k] = 2 R[k] - R[k-1] - R[k+1]               the STFT
//! 4 C[k] = Re((R[k-1] - R[k+1])·conj X[k])        |X|² times (reassigned frequency - k), in bins
//! channel 0 = log1p(Σ w·|X|²)           or another sum and another compression
//! channel 1 = Σ w·((k - centre)·|X|² + C) / (half support · Σ w·|X|²)
//! ```

use std::any::Any;
use std::sync::{Arc, Mutex};

use fearless_simd::{dispatch, prelude::*, Level};

use crate::bands::{Band, BinWeights};
use crate::frames::{Frames, MAX_LANES};
use crate::group::Group;
use crate::output::{Part, Shares};
use crate::plan::{Compression, Plan, Shape};
use crate::spectrum::{PackedSpectra, SingleSpectra, Spectra, Transform};
use crate::threads::in_threads;
use crate::Error;

/// [`Spectra::bin`] returns twice the bin, so the stencil yields 8 X: its square is
/// too large by a factor of 64.
const SCALE: f64 = 1.0 / 64.0;

/// Minimum work of a thread, in samples of frames. Less takes about 0.2 ms, which
/// is no longer than starting a thread.
const MIN_SAMPLES: usize = 1 << 19;

/// Maximum number of frames of a share.
const MAX_SHARE: usize = 1 << 12;

/// Computes features of one shape; can be shared by threads.
pub struct Kernel {
    plan: Plan,
    level: Level,
    transform: Transform,
    /// Groups that are not in use. Their memory costs as much time as a tenth of a second
    /// of sound. Never waited for: a forked process may have a copy that stays locked.
    idle: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Kernel {
    /// A kernel for the instruction set of this machine.
    ///
    /// # Errors
    ///
    /// If `shape` is invalid, a bin lies in more than two of `bands`, or a band
    /// includes DC or Nyquist.
    pub fn new(shape: Shape, bands: &[Band]) -> Result<Self, Error> {
        let Shape {
            n_fft, hop_length, ..
        } = shape;
        if n_fft < 4 || n_fft % 2 == 1 || n_fft > 1 << 24 {
            return Err(Error::Invalid(format!(
                "n_fft={n_fft} must be even, from 4 to 2^24"
            )));
        }
        if hop_length == 0 || hop_length > 1 << 24 {
            return Err(Error::Invalid(format!(
                "hop_length={hop_length} must be from 1 to 2^24"
            )));
        }
        if let Compression::Log { floor, .. } = shape.compression {
            if !(f32::MIN_POSITIVE..f32::INFINITY).contains(&floor) {
                return Err(Error::Invalid(format!(
                    "floor={floor:e} must be at least {:e} and finite",
                    f32::MIN_POSITIVE
                )));
            }
        }
        let plan = Plan {
            shape,
            bin_weights: BinWeights::new(bands, n_fft, SCALE)?,
            per_support: bands
                .iter()
                .map(|band| (1.0 / band.half_support) as f32)
                .collect(),
        };
        Ok(Kernel {
            plan,
            level: Level::new(),
            transform: Transform::new(n_fft),
            idle: Mutex::default(),
        })
    }

    #[cfg(test)]
    pub(crate) fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Samples before the first sample of a clip with which its first frame begins.
    fn padding(&self) -> usize {
        usize::from(self.plan.shape.center) * self.plan.shape.n_fft / 2
    }

    fn frames_in(&self, samples: usize) -> usize {
        let beyond_first = (samples + 2 * self.padding()).saturating_sub(self.plan.shape.n_fft);
        beyond_first / self.plan.shape.hop_length + 1
    }

    /// Shape of a clip's features: (channels, bands, frames).
    pub fn row_shape(&self, samples: usize) -> [usize; 3] {
        let channels = 1 + usize::from(self.plan.shape.if_masking_threshold.is_some());
        [
            channels,
            self.plan.per_support.len(),
            self.frames_in(samples),
        ]
    }

    /// Computes the features of clips.
    ///
    /// `clips` holds clips of `samples` samples each, `out` receives a row of
    /// shape [`row_shape`](Self::row_shape) for each. At most `threads` threads
    /// are used, including the calling one; fewer if the system does not start
    /// as many.
    ///
    /// # Errors
    ///
    /// If the lengths do not match, or a clip is too short to be padded by
    /// reflection or, if frames are not centred, for one frame.
    pub fn compute(
        &self,
        clips: &[f32],
        samples: usize,
        out: &mut [f32],
        threads: usize,
    ) -> Result<(), Error> {
        let Shape { n_fft, center, .. } = self.plan.shape;
        let half = n_fft / 2;
        if center && samples <= half {
            return Err(Error::Invalid(format!(
                "a clip of {samples} samples is too short: it must have more than n_fft/2 = {half}"
            )));
        }
        if !center && samples < n_fft {
            return Err(Error::Invalid(format!(
                "a clip of {samples} samples is too short: it must have at least n_fft={n_fft}"
            )));
        }
        let n_clips = clips.len() / samples;
        let [channels, bands, frames] = self.row_shape(samples);
        let row = channels * bands * frames;
        if n_clips * samples != clips.len() || n_clips * row != out.len() {
            return Err(Error::Invalid(format!(
                "{} samples are not clips of {samples}, or {} values of out are not as many rows of {row}",
                clips.len(),
                out.len()
            )));
        }
        if n_clips == 0 || row == 0 {
            return Ok(());
        }
        let total = n_clips * frames;
        let threads = threads.min(total * n_fft / MIN_SAMPLES).max(1);
        // Several shares for each thread, because a core may have other work, too.
        let share = match threads {
            1 => MAX_SHARE,
            _ => (total / (4 * threads)).clamp(1, MAX_SHARE),
        };
        let clips = clips.chunks_exact(samples).zip(out.chunks_exact_mut(row));
        let shares = Shares::new(clips, frames, share.next_multiple_of(MAX_LANES));
        in_threads(threads, shares, |shares| {
            self.compute_in_thread(shares.flatten());
        });
        Ok(())
    }

    fn compute_in_thread<'a>(&self, parts: impl Iterator<Item = Part<'a>>) {
        dispatch!(self.level, simd => match &self.transform {
            Transform::Packed(packed) => self.compute_parts(
                simd,
                parts,
                || PackedSpectra::new(simd, Arc::clone(packed), self.frames(simd)),
            ),
            Transform::Single(fft) => self.compute_parts(
                simd,
                parts,
                || SingleSpectra::new(simd, Arc::clone(fft), self.frames(simd)),
            ),
        });
    }

    #[inline(always)]
    fn compute_parts<'a, S: Simd, T: Spectra<S> + Send + 'static>(
        &self,
        simd: S,
        parts: impl Iterator<Item = Part<'a>>,
        spectra: impl FnOnce() -> T,
    ) {
        let idle = self.idle.try_lock().ok().and_then(|mut idle| idle.pop());
        let idle = idle.and_then(|idle| idle.downcast::<Group<S, T>>().ok());
        let mut group = idle.unwrap_or_else(|| Box::new(Group::new(simd, &self.plan, spectra())));
        group.compute(&self.plan, parts);
        if let Ok(mut idle) = self.idle.try_lock() {
            idle.push(group);
        }
    }

    fn frames<S: Simd>(&self, _: S) -> Frames {
        let Shape {
            n_fft, hop_length, ..
        } = self.plan.shape;
        Frames::new(n_fft, hop_length, self.padding(), S::f32s::LEN)
    }
}
