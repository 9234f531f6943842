//! Features to waveforms: power of single bins, an initial phase, and fast
//! Griffin-Lim, as in `distill.features.inversion`.
//!
//! As in the other direction, each lane of a vector holds another frame. Only the
//! phase is found point by point, because a tree joins all points of a clip.

mod bin_power;
mod griffin_lim;
mod phase;
mod sparse;
mod spectrogram;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;

use fearless_simd::{dispatch, prelude::*, Level};

pub use self::bin_power::{FitTables, FrequencyTables, Matrices};
pub use self::sparse::Sparse;

use self::bin_power::Fit;
use self::griffin_lim::{GriffinLim, Synthesis};
use self::phase::Phase;
use self::spectrogram::{Grid, Spectrogram};
use crate::spectrum::Packed;
use crate::threads::in_threads;
use crate::Error;

/// Largest number of points of a clip, whose edges are numbered by 32 bits.
const MAX_POINTS: usize = i32::MAX as usize;

/// Inverts features of one shape; can be shared by threads.
pub struct Inverse {
    n_fft: usize,
    hop_length: usize,
    level: Level,
    packed: Arc<Packed>,
    tables: FitTables,
    /// The Hann window, divided by n_fft.
    window: Vec<f32>,
}

impl Inverse {
    /// An inverse for the instruction set of this machine.
    ///
    /// # Errors
    ///
    /// If `n_fft` or `hop_length` is invalid, or a table does not fit the others.
    pub fn new(n_fft: usize, hop_length: usize, tables: FitTables) -> Result<Self, Error> {
        if !n_fft.is_power_of_two() || !(4..=1 << 24).contains(&n_fft) {
            return Err(Error::Invalid(format!(
                "n_fft={n_fft} must be a power of two from 4 to 2^24"
            )));
        }
        if !(1..=n_fft).contains(&hop_length) {
            return Err(Error::Invalid(format!(
                "hop_length={hop_length} must be from 1 to n_fft={n_fft}"
            )));
        }
        tables.check(n_fft / 2 + 1)?;
        let window = |n: usize| {
            let angle = std::f64::consts::TAU * n as f64 / n_fft as f64;
            ((0.5 - 0.5 * angle.cos()) / n_fft as f64) as f32
        };
        Ok(Inverse {
            n_fft,
            hop_length,
            level: Level::new(),
            packed: Arc::new(Packed::new(n_fft)),
            tables,
            window: (0..n_fft).map(window).collect(),
        })
    }

    #[cfg(test)]
    pub(crate) fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// Channels and bands of the features.
    pub fn row_shape(&self) -> [usize; 2] {
        [
            1 + usize::from(self.tables.frequency.is_some()),
            self.tables.bands(),
        ]
    }

    /// Computes the waveforms of clips.
    ///
    /// `features` holds for each clip the [`row_shape`](Self::row_shape) with
    /// `frames` finite values for each band, of channel 0 at most 80; `out` receives
    /// `samples` samples for each. A clip is as if its waveform had been reflected at
    /// both ends. At most `threads` threads are used, each for whole clips.
    ///
    /// # Errors
    ///
    /// If the lengths do not match, there are no frames or too many, or `samples` is
    /// too small for the reflection.
    pub fn compute(
        &self,
        features: &[f32],
        frames: usize,
        n_iter: usize,
        samples: usize,
        out: &mut [f32],
        threads: usize,
    ) -> Result<(), Error> {
        let (row, bins) = (
            self.row_shape().iter().product::<usize>() * frames,
            self.n_fft / 2 + 1,
        );
        if frames == 0 || frames > MAX_POINTS / bins - 16 {
            return Err(Error::Invalid(format!(
                "frames={frames} must be from 1 to {}",
                MAX_POINTS / bins - 16
            )));
        }
        if samples <= self.n_fft / 2 {
            return Err(Error::Invalid(format!(
                "samples={samples} must be above n_fft/2 = {}",
                self.n_fft / 2
            )));
        }
        let clips = features.len() / row;
        if clips * row != features.len() || clips * samples != out.len() {
            return Err(Error::Invalid(format!(
                "{} values are not clips of {row}, or {} samples are not as many clips of {samples}",
                features.len(),
                out.len()
            )));
        }
        if clips == 0 {
            return Ok(());
        }
        let synthesis =
            Synthesis::new(&self.packed, self.hop_length, &self.window, frames, samples);
        let threads = threads.clamp(1, clips);
        let share = clips.div_ceil(threads);
        let shares = features
            .chunks(share * row)
            .zip(out.chunks_mut(share * samples));
        in_threads(threads, shares, |shares| {
            for (features, out) in shares {
                let clips = features
                    .chunks_exact(row)
                    .zip(out.chunks_exact_mut(samples));
                dispatch!(self.level, simd => self.invert(simd, &synthesis, clips, frames, n_iter));
            }
        });
        Ok(())
    }

    #[inline(always)]
    fn invert<'c, S: Simd>(
        &self,
        simd: S,
        synthesis: &Synthesis,
        clips: impl Iterator<Item = (&'c [f32], &'c mut [f32])>,
        frames: usize,
        n_iter: usize,
    ) {
        let grid = Grid {
            bins: self.n_fft / 2 + 1,
            frames,
            width: frames.next_multiple_of(S::f32s::LEN),
        };
        let mut spectrogram = Spectrogram::new(grid, self.tables.frequency.is_some());
        let mut fit = Fit::new(simd, &self.tables);
        let mut phase = Phase::default();
        let mut griffin_lim = GriffinLim::new(simd, synthesis, grid.width);
        for (features, out) in clips {
            let (magnitude, frequency) = features.split_at(self.tables.bands() * frames);
            let power: Vec<f32> = magnitude
                .iter()
                .map(|value| value.max(0.0).exp_m1())
                .collect();
            let loudest = power.iter().copied().fold(0.0, f32::max);
            if loudest == 0.0 {
                out.fill(0.0);
                continue;
            }
            let power = power
                .iter()
                .map(|value| value / loudest)
                .collect::<Vec<_>>();
            simd.vectorize(
                #[inline(always)]
                || spectrogram.fit(simd, &mut fit, &power, frequency),
            );
            simd.vectorize(
                #[inline(always)]
                || phase.find(simd, &spectrogram, self.hop_length),
            );
            simd.vectorize(
                #[inline(always)]
                || griffin_lim.run(simd, &spectrogram, &phase, n_iter, loudest.sqrt(), out),
            );
        }
    }
}
