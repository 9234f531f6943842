//! The initial phase: steps between neighbouring points, summed along the maximum
//! spanning tree. `distill.features.inversion.phase` explains the steps.
//!
//! Phases are integers in units of 2^-32 turns: their sums need no rounding and
//! wrap by themselves.

use std::f64::consts::{PI, TAU};

use fearless_simd::prelude::*;

use super::spectrogram::{Grid, Spectrogram};
use super::tree::Tree;
use crate::elementary::log;

/// The Gaussian window closest to Hann's is exp(-πn²/(0.25645·n_fft²)).
const GAUSSIAN: f64 = 0.25645;
/// Magnitude below which its slope is rounding errors.
const FLOOR: f32 = 1e-6;
/// Integer phases in a turn.
const TURN: f32 = 4_294_967_296.0;

/// The phase of a spectrogram, and the memory to find it.
#[derive(Default)]
pub(crate) struct Phase {
    /// Phase of each point, in units of 2^-32 turns.
    phase: Vec<i32>,
    /// Logarithm of the magnitude.
    level: Vec<f32>,
    /// Phase of the next frame less that of a point.
    advance: Vec<i32>,
    /// Phase of the next bin less that of a point.
    rise: Vec<i32>,
    tree: Tree,
}

impl Phase {
    /// Finds the phase of a spectrogram; that of its loudest point is 0.
    #[inline(always)]
    pub(crate) fn find<S: Simd>(&mut self, simd: S, of: &Spectrogram, hop_length: usize) {
        let grid = of.grid;
        let points = grid.points();
        for values in [&mut self.phase, &mut self.advance, &mut self.rise] {
            values.resize(points, 0);
        }
        self.level.resize(points, 0.0);
        let vectors = of.magnitude.chunks_exact(S::f32s::LEN);
        for (level, magnitude) in self.level.chunks_exact_mut(S::f32s::LEN).zip(vectors) {
            let magnitude = S::f32s::from_slice(simd, magnitude);
            log(simd, magnitude + FLOOR).store_slice(level);
        }
        self.advances(of, hop_length);
        self.rises(grid, hop_length);
        // The memory of the level is no longer needed, so it takes the power.
        for (power, magnitude) in self.level.iter_mut().zip(&of.magnitude) {
            *power = magnitude * magnitude;
        }
        self.sum(grid);
    }

    /// The phases of a vector of points, in turns from -1/2 to 1/2.
    #[inline(always)]
    pub(crate) fn turns<S: Simd>(&self, simd: S, first: usize) -> S::f32s {
        let phase = S::i32s::from_slice(simd, &self.phase[first..first + S::f32s::LEN]);
        phase.to_float::<S::f32s>() * (1.0 / TURN)
    }

    #[inline(always)]
    fn advances(&mut self, of: &Spectrogram, hop_length: usize) {
        let Grid {
            bins,
            frames,
            width,
        } = of.grid;
        let per_bin = (hop_length as f64 / (4 * (bins - 1)) as f64) as f32;
        let mut derived = vec![0.0; frames];
        for bin in 0..bins {
            let row = bin * width..bin * width + frames;
            let frequency = if let Some(frequency) = &of.frequency {
                &frequency[row.clone()]
            } else {
                let below = &self.level[bin.saturating_sub(1) * width..][..frames];
                let above = &self.level[(bin + 1).min(bins - 1) * width..][..frames];
                for (value, (above, below)) in derived.iter_mut().zip(above.iter().zip(below)) {
                    let slope = (above - below) * 0.5;
                    *value = bin as f32 + slope * (1.0 / (TAU * GAUSSIAN)) as f32;
                }
                &derived[..]
            };
            let pairs = frequency.iter().zip(&frequency[1..]);
            for (advance, (here, next)) in self.advance[row].iter_mut().zip(pairs) {
                *advance = to_phase((next + here) * per_bin);
            }
        }
    }

    #[inline(always)]
    fn rises(&mut self, grid: Grid, hop_length: usize) {
        let Grid {
            bins,
            frames,
            width,
        } = grid;
        let per_slope = (GAUSSIAN * (2 * (bins - 1)) as f64 / hop_length as f64) as f32;
        let limit = PI as f32;
        let mut delays = [vec![0.0; frames], vec![0.0; frames]];
        for bin in 0..bins {
            let [before, delay] = &mut delays;
            std::mem::swap(before, delay);
            slopes(&self.level[bin * width..][..frames], delay);
            for delay in delay.iter_mut() {
                *delay = (*delay * per_slope).clamp(-limit, limit);
            }
            if bin > 0 {
                let rise = &mut self.rise[(bin - 1) * width..][..width];
                for (rise, (before, delay)) in rise.iter_mut().zip(before.iter().zip(&*delay)) {
                    *rise = to_phase((delay + before) * (-0.5 / TAU) as f32);
                }
            }
        }
    }

    /// Sums the steps from the loudest point on.
    fn sum(&mut self, grid: Grid) {
        let Phase {
            phase,
            level: power,
            advance,
            rise,
            tree,
        } = self;
        tree.span(grid, power);
        let mut root = 0;
        for (point, value) in power.iter().enumerate() {
            if *value > power[root] {
                root = point;
            }
        }
        phase[root] = 0;
        tree.walk(grid, root, |step| {
            let from = phase[step.from];
            phase[step.to] = if step.to > step.from {
                let change = if step.to == step.from + 1 {
                    &advance
                } else {
                    &rise
                };
                from.wrapping_add(change[step.from])
            } else {
                let change = if step.from == step.to + 1 {
                    &advance
                } else {
                    &rise
                };
                from.wrapping_sub(change[step.to])
            };
        });
        // The phase now refers to the middle of a frame, half a turn per bin after its
        // first sample.
        for row in phase
            .chunks_exact_mut(2 * grid.width)
            .map(|rows| &mut rows[grid.width..])
        {
            for phase in row {
                *phase = phase.wrapping_add(i32::MIN);
            }
        }
    }
}

/// Central differences.
#[inline(always)]
fn slopes(level: &[f32], out: &mut [f32]) {
    let last = level.len() - 1;
    for (out, window) in out[1..].iter_mut().zip(level.windows(3)) {
        *out = (window[2] - window[0]) * 0.5;
    }
    out[0] = (level[1.min(last)] - level[0]) * 0.5;
    out[last] = (level[last] - level[last.saturating_sub(1)]) * 0.5;
}

/// A number of turns as an integer phase.
#[inline(always)]
fn to_phase(turns: f32) -> i32 {
    ((turns - turns.round_ties_even()) * TURN) as i32
}
