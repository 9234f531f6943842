//! The kernel: clips in, both channels out.
//!
//! With `R` the spectrum of the unwindowed frame, the periodic Hann window is a
//! three-point stencil, and so is its derivative (Auger and Flandrin 1995):
//!
//! ```text
//! 4 X[k] = 2 R[k] - R[k-1] - R[k+1]                  the STFT
//! 4 C[k] = Re((R[k-1] - R[k+1])·conj X[k])           |X|² times the reassigned frequency less k, bins
//! channel 0 = log1p(Σ w·|X|²)
//! channel 1 = Σ w·((k - centre)·|X|² + C) / (half support · Σ w·|X|²)
//! ```

use std::thread;

use fearless_simd::{dispatch, prelude::*, Level};

use crate::bands::{Band, Walk};
use crate::frames::Frames;
use crate::log::log1p;
use crate::spectrum::{PackedSpectra, SingleSpectra, Spectra, Transform};
use crate::Error;

/// Channel 1 is clamped to this either way.
const LIMIT: f32 = 2.0;

/// Bins come twice, and X times 4 of that: what their squares are too large by.
const SCALE: f64 = 1.0 / 64.0;

/// Points of transforms below which another thread takes longer to start than
/// it saves: about 0.2 ms.
const MIN_SHARE: usize = 1 << 19;

/// What the feature is, beside its bands.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Samples of a frame; even, and at least 4.
    pub n_fft: usize,
    /// Samples between the starts of two frames; at least 1.
    pub hop_length: usize,
    /// Power of a band at or below which channel 1 is 0; without it there is no
    /// channel 1.
    pub if_masking_threshold: Option<f32>,
}

/// All that is known before there are samples.
pub struct Kernel {
    shape: Shape,
    level: Level,
    transform: Transform,
    walk: Walk,
    /// Of each band, one over half its support.
    per_support: Vec<f32>,
}

impl Kernel {
    /// A kernel for this machine.
    ///
    /// # Errors
    ///
    /// If `shape` cannot be, or a bin lies in more than two of `bands`, or one
    /// of them holds DC or Nyquist.
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
        Ok(Kernel {
            shape,
            level: Level::new(),
            transform: Transform::new(n_fft),
            walk: Walk::new(bands, n_fft, SCALE)?,
            per_support: bands
                .iter()
                .map(|band| (1.0 / band.half_support) as f32)
                .collect(),
        })
    }

    #[cfg(test)]
    pub(crate) fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Shape of a clip's features: channels, bands, frames.
    pub fn row_shape(&self, samples: usize) -> [usize; 3] {
        let channels = 1 + usize::from(self.shape.if_masking_threshold.is_some());
        [
            channels,
            self.per_support.len(),
            samples / self.shape.hop_length + 1,
        ]
    }

    /// Computes clips of `samples` each, one after another in `clips`, into
    /// their features, one after another in `out`, on `threads` threads at the
    /// most, of which the caller's is one.
    ///
    /// # Errors
    ///
    /// If lengths do not fit, or a clip is too short to be reflected.
    pub fn compute(
        &self,
        clips: &[f32],
        samples: usize,
        out: &mut [f32],
        threads: usize,
    ) -> Result<(), Error> {
        let half = self.shape.n_fft / 2;
        if samples <= half {
            return Err(Error::Invalid(format!(
                "a clip of {samples} samples must have more than n_fft/2 = {half}"
            )));
        }
        let n_clips = clips.len() / samples;
        let [channels, bands, frames] = self.row_shape(samples);
        let row = channels * bands * frames;
        if n_clips * samples != clips.len() || n_clips * row != out.len() {
            return Err(Error::Invalid(format!(
                "{} samples and {} values must be clips of {samples} and rows of {row}",
                clips.len(),
                out.len()
            )));
        }
        if n_clips == 0 || row == 0 {
            return Ok(());
        }
        let worth = n_clips * frames * self.shape.n_fft / MIN_SHARE;
        let share = n_clips.div_ceil(threads.min(worth).max(1));
        let mut shares = clips
            .chunks(share * samples)
            .zip(out.chunks_mut(share * row));
        let own = shares.next();
        thread::scope(|scope| {
            for (clips, out) in shares {
                scope.spawn(move || self.compute_here(clips, samples, out, row));
            }
            if let Some((clips, out)) = own {
                self.compute_here(clips, samples, out, row);
            }
        });
        Ok(())
    }

    fn compute_here(&self, clips: &[f32], samples: usize, out: &mut [f32], row: usize) {
        dispatch!(self.level, simd => match &self.transform {
            Transform::Packed(packed) => {
                Group::new(simd, self, PackedSpectra::new(simd, packed, self.frames(simd)))
                    .clips(clips, samples, out, row);
            }
            Transform::Single(fft) => {
                Group::new(simd, self, SingleSpectra::new(simd, fft.as_ref(), self.frames(simd)))
                    .clips(clips, samples, out, row);
            }
        });
    }

    fn frames<S: Simd>(&self, _: S) -> Frames {
        Frames::new(self.shape.n_fft, self.shape.hop_length, S::f32s::LEN)
    }
}

/// Work on as many frames as a vector has lanes.
struct Group<'a, S: Simd, T> {
    simd: S,
    kernel: &'a Kernel,
    spectra: T,
    /// Power and shift of each band, and of one that takes what is in no band.
    sums: Vec<[S::f32s; 2]>,
}

impl<'a, S: Simd, T: Spectra<S>> Group<'a, S, T> {
    #[inline(always)]
    fn new(simd: S, kernel: &'a Kernel, spectra: T) -> Self {
        let sums = vec![[S::f32s::splat(simd, 0.0); 2]; kernel.per_support.len() + 1];
        Group {
            simd,
            kernel,
            spectra,
            sums,
        }
    }

    #[inline(always)]
    fn clips(&mut self, clips: &[f32], samples: usize, out: &mut [f32], row: usize) {
        let frames = samples / self.kernel.shape.hop_length + 1;
        for (clip, out) in clips.chunks_exact(samples).zip(out.chunks_exact_mut(row)) {
            for first in (0..frames).step_by(S::f32s::LEN) {
                self.spectra.transform(self.simd, clip, first);
                match self.kernel.shape.if_masking_threshold {
                    Some(threshold) => {
                        self.sum::<true>();
                        self.put_frequency(out, first, frames, threshold);
                    }
                    None => self.sum::<false>(),
                }
                self.put_magnitude(out, first, frames);
            }
        }
    }

    /// Walks over the bins: their power and, with frequency, their shift, into
    /// the sums of the bands.
    #[inline(always)]
    fn sum<const WITH_FREQUENCY: bool>(&mut self) {
        let Group {
            simd,
            kernel,
            spectra,
            sums,
        } = self;
        let simd = *simd;
        let walk = &kernel.walk;
        sums.fill([S::f32s::splat(simd, 0.0); 2]);
        let mut bin = walk.start;
        let mut below = spectra.bin(simd, bin - 1);
        let mut here = spectra.bin(simd, bin);
        let mut shares = walk.shares.iter();
        for stretch in &walk.stretches {
            let mut lower = sums[stretch.bands[0]];
            let mut upper = sums[stretch.bands[1]];
            for &[low, high] in shares.by_ref().take(stretch.end - bin) {
                let above = spectra.bin(simd, bin + 1);
                let stft = here.plus(here).minus(below.plus(above));
                let power = stft.re.mul_add(stft.re, stft.im * stft.im);
                let slope = below.minus(above);
                let shift = slope.re.mul_add(stft.re, slope.im * stft.im);
                for (sums, share) in [(&mut lower, low), (&mut upper, high)] {
                    let weight = S::f32s::splat(simd, share.weight);
                    sums[0] = power.mul_add(weight, sums[0]);
                    if WITH_FREQUENCY {
                        let moment = S::f32s::splat(simd, share.moment);
                        sums[1] = power.mul_add(moment, shift.mul_add(weight, sums[1]));
                    }
                }
                (below, here) = (here, above);
                bin += 1;
            }
            sums[stretch.bands[0]] = lower;
            sums[stretch.bands[1]] = upper;
        }
    }

    #[inline(always)]
    fn put_magnitude(&self, out: &mut [f32], first: usize, frames: usize) {
        let (magnitude, _) = out.split_at_mut(self.kernel.per_support.len() * frames);
        for (band, [power, _]) in magnitude.chunks_exact_mut(frames).zip(&self.sums) {
            put::<S>(log1p(self.simd, *power), &mut band[first..]);
        }
    }

    /// NaN stays NaN; 0 where a band is masked.
    #[inline(always)]
    fn put_frequency(&self, out: &mut [f32], first: usize, frames: usize, threshold: f32) {
        let limit = S::f32s::splat(self.simd, LIMIT);
        let zero = S::f32s::splat(self.simd, 0.0);
        let (_, frequency) = out.split_at_mut(self.kernel.per_support.len() * frames);
        let bands = frequency.chunks_exact_mut(frames);
        for ((band, sums), per_support) in bands.zip(&self.sums).zip(&self.kernel.per_support) {
            let [power, shift] = *sums;
            let value = shift / power * *per_support;
            let value = value.simd_gt(limit).select(limit, value);
            let value = value.simd_lt(-limit).select(-limit, value);
            put::<S>(
                power.simd_le(threshold).select(zero, value),
                &mut band[first..],
            );
        }
    }
}

/// The lanes' values, as many as there is room for.
#[inline(always)]
fn put<S: Simd>(values: S::f32s, out: &mut [f32]) {
    match out.get_mut(..S::f32s::LEN) {
        Some(out) => values.store_slice(out),
        None => out.copy_from_slice(&values.as_slice()[..out.len()]),
    }
}
