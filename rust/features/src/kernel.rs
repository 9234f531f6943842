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

use fearless_simd::{dispatch, prelude::*, Level};

use crate::bands::{Band, BinWeights};
use crate::elementary::{log, log1p};
use crate::frames::Frames;
use crate::spectrum::{PackedSpectra, SingleSpectra, Spectra, Transform};
use crate::threads::in_threads;
use crate::Error;

/// Channel 1 is clamped to ± this.
const LIMIT: f32 = 2.0;

/// [`Spectra::bin`] returns twice the bin, so the stencil yields 8 X: its square is
/// too large by a factor of 64.
const SCALE: f64 = 1.0 / 64.0;

/// The weights contain SCALE for the 64 |X|² of a power; a magnitude is 8 |X|.
const MAGNITUDE_SCALE: f32 = 8.0;

/// Minimum work of a thread, in samples of frames. Less takes about 0.2 ms, which
/// is no longer than starting a thread.
const MIN_SAMPLES: usize = 1 << 19;

/// The parameters of the features, besides the bands.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Samples per frame; even, at least 4.
    pub n_fft: usize,
    /// Samples from one frame to the next; at least 1.
    pub hop_length: usize,
    /// Whether frames are centred at multiples of `hop_length`, and clips reflected
    /// at their ends. Otherwise all frames lie inside the clip.
    pub center: bool,
    /// What channel 0 adds up.
    pub sum: Sum,
    /// What is done to the sums of channel 0.
    pub compression: Compression,
    /// If the power of a band is at most this, channel 1 is 0. `None`: channel 1
    /// is not computed.
    pub if_masking_threshold: Option<f32>,
}

/// What is added up over the bins of a band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// |X|²
    Power,
    /// |X|
    Magnitude,
}

/// What is done to the sums of channel 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compression {
    /// Nothing.
    None,
    /// log(1 + x)
    Log1p,
    /// `factor · log(max(x, floor))`
    Log {
        /// Least value of which the logarithm is taken; a normal number above 0.
        floor: f32,
        /// What the natural logarithm is multiplied with.
        factor: f32,
    },
}

impl Compression {
    /// Infinity and NaN are returned unchanged.
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        match self {
            Compression::None => x,
            Compression::Log1p => log1p(simd, x),
            Compression::Log { floor, factor } => {
                let result = log(simd, x.max(floor)) * factor;
                x.simd_lt(f32::INFINITY).select(result, x)
            }
        }
    }
}

/// Computes features of one shape; can be shared by threads.
pub struct Kernel {
    shape: Shape,
    level: Level,
    transform: Transform,
    bin_weights: BinWeights,
    /// 1 / (half support) of each band.
    per_support: Vec<f32>,
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
        Ok(Kernel {
            shape,
            level: Level::new(),
            transform: Transform::new(n_fft),
            bin_weights: BinWeights::new(bands, n_fft, SCALE)?,
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

    /// Samples before the first sample of a clip with which its first frame begins.
    fn padding(&self) -> usize {
        usize::from(self.shape.center) * self.shape.n_fft / 2
    }

    fn frames_in(&self, samples: usize) -> usize {
        let beyond_first = (samples + 2 * self.padding()).saturating_sub(self.shape.n_fft);
        beyond_first / self.shape.hop_length + 1
    }

    /// Shape of a clip's features: (channels, bands, frames).
    pub fn row_shape(&self, samples: usize) -> [usize; 3] {
        let channels = 1 + usize::from(self.shape.if_masking_threshold.is_some());
        [channels, self.per_support.len(), self.frames_in(samples)]
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
        let Shape { n_fft, center, .. } = self.shape;
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
        let useful = n_clips * frames * self.shape.n_fft / MIN_SAMPLES;
        let share = n_clips.div_ceil(threads.min(useful).max(1));
        let clips = clips.chunks(share * samples);
        let shares = clips.zip(out.chunks_mut(share * row));
        in_threads(shares, |(clips, out)| {
            self.compute_in_thread(clips, samples, out, row);
        });
        Ok(())
    }

    fn compute_in_thread(&self, clips: &[f32], samples: usize, out: &mut [f32], row: usize) {
        dispatch!(self.level, simd => match &self.transform {
            Transform::Packed(packed) => {
                Group::new(simd, self, PackedSpectra::new(simd, packed, self.frames(simd)))
                    .compute(clips, samples, out, row);
            }
            Transform::Single(fft) => {
                Group::new(simd, self, SingleSpectra::new(simd, fft.as_ref(), self.frames(simd)))
                    .compute(clips, samples, out, row);
            }
        });
    }

    fn frames<S: Simd>(&self, _: S) -> Frames {
        let Shape {
            n_fft, hop_length, ..
        } = self.shape;
        Frames::new(n_fft, hop_length, self.padding(), S::f32s::LEN)
    }
}

/// Computes as many frames at a time as a vector has lanes.
struct Group<'a, S: Simd, T> {
    simd: S,
    kernel: &'a Kernel,
    spectra: T,
    /// Sums of power, shift and magnitude of each band, and of one after the last
    /// for bins that lie in fewer than two bands.
    sums: Vec<[S::f32s; 3]>,
}

impl<'a, S: Simd, T: Spectra<S>> Group<'a, S, T> {
    #[inline(always)]
    fn new(simd: S, kernel: &'a Kernel, spectra: T) -> Self {
        let sums = vec![[S::f32s::splat(simd, 0.0); 3]; kernel.per_support.len() + 1];
        Group {
            simd,
            kernel,
            spectra,
            sums,
        }
    }

    #[inline(always)]
    fn compute(&mut self, clips: &[f32], samples: usize, out: &mut [f32], row: usize) {
        let frames = self.kernel.frames_in(samples);
        let Shape { sum, .. } = self.kernel.shape;
        for (clip, out) in clips.chunks_exact(samples).zip(out.chunks_exact_mut(row)) {
            for first in (0..frames).step_by(S::f32s::LEN) {
                self.spectra.transform(self.simd, clip, first);
                let threshold = self.kernel.shape.if_masking_threshold;
                match (threshold.is_some(), sum) {
                    (true, Sum::Power) => self.sum::<true, false>(),
                    (false, Sum::Power) => self.sum::<false, false>(),
                    (true, Sum::Magnitude) => self.sum::<true, true>(),
                    (false, Sum::Magnitude) => self.sum::<false, true>(),
                }
                if let Some(threshold) = threshold {
                    self.store_frequency(out, first, frames, threshold);
                }
                self.store_magnitude(out, first, frames);
            }
        }
    }

    /// Adds the power of each bin, its shift if there is channel 1, and its magnitude
    /// if channel 0 needs it, to the sums of its bands.
    #[inline(always)]
    fn sum<const WITH_FREQUENCY: bool, const WITH_MAGNITUDE: bool>(&mut self) {
        let Group {
            simd,
            kernel,
            spectra,
            sums,
        } = self;
        let simd = *simd;
        let plan = &kernel.bin_weights;
        sums.fill([S::f32s::splat(simd, 0.0); 3]);
        let mut bin = plan.start;
        let mut below = spectra.bin(simd, bin - 1);
        let mut here = spectra.bin(simd, bin);
        let mut weights = plan.weights.iter();
        for section in &plan.sections {
            let mut first_sums = sums[section.bands[0]];
            let mut second_sums = sums[section.bands[1]];
            for &[first, second] in weights.by_ref().take(section.end - bin) {
                let above = spectra.bin(simd, bin + 1);
                let stft = here.plus(here).minus(below.plus(above));
                let power = stft.re.mul_add(stft.re, stft.im * stft.im);
                let slope = below.minus(above);
                let shift = slope.re.mul_add(stft.re, slope.im * stft.im);
                for (sums, factors) in [(&mut first_sums, first), (&mut second_sums, second)] {
                    let weight = S::f32s::splat(simd, factors.weight);
                    sums[0] = power.mul_add(weight, sums[0]);
                    if WITH_MAGNITUDE {
                        sums[2] = power.sqrt().mul_add(weight, sums[2]);
                    }
                    if WITH_FREQUENCY {
                        let moment = S::f32s::splat(simd, factors.moment);
                        sums[1] = power.mul_add(moment, shift.mul_add(weight, sums[1]));
                    }
                }
                (below, here) = (here, above);
                bin += 1;
            }
            sums[section.bands[0]] = first_sums;
            sums[section.bands[1]] = second_sums;
        }
    }

    #[inline(always)]
    fn store_magnitude(&self, out: &mut [f32], first: usize, frames: usize) {
        let (magnitude, _) = out.split_at_mut(self.kernel.per_support.len() * frames);
        let Shape {
            sum, compression, ..
        } = self.kernel.shape;
        for (band, [power, _, magnitude]) in magnitude.chunks_exact_mut(frames).zip(&self.sums) {
            let value = match sum {
                Sum::Power => *power,
                Sum::Magnitude => *magnitude * MAGNITUDE_SCALE,
            };
            store::<S>(compression.apply(self.simd, value), &mut band[first..]);
        }
    }

    /// Stores 0 where the power is at most `threshold`. NaN stays NaN.
    #[inline(always)]
    fn store_frequency(&self, out: &mut [f32], first: usize, frames: usize, threshold: f32) {
        let limit = S::f32s::splat(self.simd, LIMIT);
        let zero = S::f32s::splat(self.simd, 0.0);
        let (_, frequency) = out.split_at_mut(self.kernel.per_support.len() * frames);
        let bands = frequency.chunks_exact_mut(frames);
        for ((band, sums), per_support) in bands.zip(&self.sums).zip(&self.kernel.per_support) {
            let [power, shift, _] = *sums;
            let value = shift / power * *per_support;
            let value = value.simd_gt(limit).select(limit, value);
            let value = value.simd_lt(-limit).select(-limit, value);
            store::<S>(
                power.simd_le(threshold).select(zero, value),
                &mut band[first..],
            );
        }
    }
}

/// Stores the values of the first lanes, as many as fit into `out`.
#[inline(always)]
fn store<S: Simd>(values: S::f32s, out: &mut [f32]) {
    match out.get_mut(..S::f32s::LEN) {
        Some(out) => values.store_slice(out),
        None => out.copy_from_slice(&values.as_slice()[..out.len()]),
    }
}
