//! Magnitude and frequency of the points of a spectrogram.

use fearless_simd::prelude::*;

use super::bin_power::Fit;

/// Points of a spectrogram, bin after bin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) bins: usize,
    pub(crate) frames: usize,
    /// Distance from one bin to the next: the frames, rounded up to whole groups.
    pub(crate) width: usize,
}

impl Grid {
    /// Number of points, including those after the last frame.
    pub(crate) fn points(self) -> usize {
        self.bins * self.width
    }
}

/// What is known of a clip's spectrogram, apart from its phase.
pub(crate) struct Spectrogram {
    pub(crate) grid: Grid,
    /// From 0 to about 1.
    pub(crate) magnitude: Vec<f32>,
    /// Frequency in bins; `None` if it follows from the magnitude.
    pub(crate) frequency: Option<Vec<f32>>,
}

impl Spectrogram {
    pub(crate) fn new(grid: Grid, with_frequency: bool) -> Self {
        let zeros = || vec![0.0; grid.points()];
        Spectrogram {
            grid,
            magnitude: zeros(),
            frequency: with_frequency.then(zeros),
        }
    }

    /// Fits magnitude and frequency to the bands of a clip, of the shape (bands,
    /// frames): power, from 0 to 1, and channel 1, which may be empty.
    #[inline(always)]
    pub(crate) fn fit<S: Simd>(
        &mut self,
        simd: S,
        fit: &mut Fit<S>,
        power: &[f32],
        offset: &[f32],
    ) {
        let Grid { frames, width, .. } = self.grid;
        let lanes = S::f32s::LEN;
        for first in (0..frames).step_by(lanes) {
            load(simd, power, frames, first, &mut fit.power);
            load(simd, offset, frames, first, &mut fit.offset);
            fit.run(simd);
            store(&fit.magnitude, &mut self.magnitude[first..], width);
            if let Some(frequency) = &mut self.frequency {
                store(&fit.frequency, &mut frequency[first..], width);
            }
        }
    }
}

/// Stores a vector for each bin, `width` apart.
#[inline(always)]
fn store<V: SimdBase<S, Element = f32>, S: Simd>(values: &[V], out: &mut [f32], width: usize) {
    for (value, out) in values.iter().zip(out.chunks_mut(width)) {
        value.store_slice(&mut out[..V::LEN]);
    }
}

/// Loads a group of frames of each row; 0 after the last frame.
#[inline(always)]
fn load<S: Simd>(simd: S, rows: &[f32], frames: usize, first: usize, out: &mut [S::f32s]) {
    for (row, out) in rows.chunks_exact(frames).zip(out) {
        *out = match row.get(first..first + S::f32s::LEN) {
            Some(values) => S::f32s::from_slice(simd, values),
            None => S::f32s::from_fn(simd, |lane| row.get(first + lane).copied().unwrap_or(0.0)),
        };
    }
}
