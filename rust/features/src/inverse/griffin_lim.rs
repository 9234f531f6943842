//! Fast Griffin-Lim (Perraudin, Balazs and Søndergaard 2013).
//!
//! A group of frames is analysed, changed and synthesised before the next one, so
//! of all spectra only the previous ones are stored.

use std::sync::Arc;

use fearless_simd::prelude::*;

use super::phase::Phase;
use super::spectrogram::Spectrogram;
use crate::complex::Complex;
use crate::elementary::cos_sin;
use crate::frames::{Frames, OverlapAdd, Run};
use crate::spectrum::{Packed, PackedFrames, PackedSpectra, Spectra};

const MOMENTUM: f32 = 0.99;
const TINY: f32 = 1e-20;
/// Smallest divisor of overlap-add, relative to the largest sum of squared windows.
const LEAST_WEIGHT: f32 = 1e-2;
/// The stencil of the Hann window yields 8 times the spectrum.
const SCALE: f32 = 1.0 / 8.0;

/// What is the same for all clips with as many frames.
pub(crate) struct Synthesis<'a> {
    packed: &'a Arc<Packed>,
    hop_length: usize,
    /// The Hann window, divided by n_fft.
    window: &'a [f32],
    /// What the sum of frames is multiplied with.
    gains: Vec<f32>,
    /// Samples of a clip, without the half frame before it.
    samples: usize,
}

impl<'a> Synthesis<'a> {
    pub(crate) fn new(
        packed: &'a Arc<Packed>,
        hop_length: usize,
        window: &'a [f32],
        frames: usize,
        samples: usize,
    ) -> Self {
        let n_fft = window.len();
        let mut gains = vec![0.0; (frames - 1) * hop_length + n_fft];
        for start in (0..frames).map(|frame| frame * hop_length) {
            for (sum, value) in gains[start..start + n_fft].iter_mut().zip(window) {
                let value = value * n_fft as f32;
                *sum += value * value;
            }
        }
        let largest = gains.iter().copied().fold(0.0, f32::max);
        for gain in &mut gains {
            *gain = 1.0 / gain.max(LEAST_WEIGHT * largest);
        }
        Synthesis {
            packed,
            hop_length,
            window,
            gains,
            samples,
        }
    }
}

/// A clip that is computed, and the memory for it.
pub(crate) struct GriffinLim<'a, S: Simd> {
    synthesis: &'a Synthesis<'a>,
    spectra: PackedSpectra<S>,
    frames: PackedFrames<'a, S>,
    overlap: OverlapAdd,
    /// The spectra of a group.
    spectrum: Vec<Complex<S>>,
    /// The spectra of the previous iteration, group after group.
    previous: Vec<Complex<S>>,
    /// The waveform, from half a frame before its start, and that of the next
    /// iteration.
    waveform: Vec<f32>,
    next: Vec<f32>,
}

impl<'a, S: Simd> GriffinLim<'a, S> {
    pub(crate) fn new(simd: S, synthesis: &'a Synthesis<'a>, width: usize) -> Self {
        let (n_fft, hop_length) = (synthesis.window.len(), synthesis.hop_length);
        let lanes = S::f32s::LEN;
        let overlap = OverlapAdd::new(n_fft, hop_length, lanes);
        let spanned = (width - lanes) * hop_length + overlap.span();
        let length = spanned.max(n_fft / 2 + synthesis.samples);
        let input = Frames::new(n_fft, hop_length, n_fft / 2, lanes);
        GriffinLim {
            synthesis,
            spectra: PackedSpectra::new(simd, Arc::clone(synthesis.packed), input),
            frames: PackedFrames::new(simd, synthesis.packed),
            overlap,
            spectrum: vec![Complex::zero(simd); n_fft / 2 + 1],
            previous: Vec::new(),
            waveform: vec![0.0; length],
            next: vec![0.0; length],
        }
    }

    /// Computes a waveform, multiplied by `gain`.
    #[inline(always)]
    pub(crate) fn run(
        &mut self,
        simd: S,
        of: &Spectrogram,
        phase: &Phase,
        n_iter: usize,
        gain: f32,
        out: &mut [f32],
    ) {
        let (grid, lanes) = (of.grid, S::f32s::LEN);
        for first in (0..grid.width).step_by(lanes) {
            for (bin, value) in self.spectrum.iter_mut().enumerate() {
                let point = bin * grid.width + first;
                let magnitude = S::f32s::from_slice(simd, &of.magnitude[point..point + lanes]);
                let [cosine, sine] = cos_sin(simd, phase.turns(simd, point));
                *value = Complex::new(magnitude * cosine, magnitude * sine);
            }
            self.synthesize(simd, first);
        }
        self.finish();
        for iteration in 0..n_iter {
            if iteration == 0 {
                let bins = grid.bins * (grid.width / lanes);
                self.previous.resize(bins, Complex::zero(simd));
            }
            for first in (0..grid.width).step_by(lanes) {
                self.analyze(simd, first, of, iteration == 0);
                self.synthesize(simd, first);
            }
            self.finish();
        }
        let half = self.synthesis.window.len() / 2;
        for (out, sample) in out.iter_mut().zip(&self.waveform[half..]) {
            *out = sample * gain;
        }
    }

    /// Computes the next spectra of a group from the waveform.
    #[inline(always)]
    fn analyze(&mut self, simd: S, first: usize, of: &Spectrogram, is_first: bool) {
        let (half, lanes) = (self.synthesis.window.len() / 2, S::f32s::LEN);
        let clip = &self.waveform[half..half + self.synthesis.samples];
        self.spectra.transform(
            simd,
            &[Run {
                clip,
                first,
                count: lanes,
            }],
        );
        let bins = self.spectrum.len();
        let previous = &mut self.previous[first / lanes * bins..][..bins];
        // Beyond both ends, the spectrum is its mirror image.
        let conjugate = |value: Complex<S>| Complex::<S>::new(value.re, -value.im);
        let mut here = self.spectra.bin(simd, 0);
        let mut below = conjugate(self.spectra.bin(simd, 1));
        let values = self.spectrum.iter_mut().zip(previous);
        for (bin, (value, previous)) in values.enumerate() {
            let above = if bin + 1 < bins {
                self.spectra.bin(simd, bin + 1)
            } else {
                conjugate(below)
            };
            let stft = here.plus(here).minus(below.plus(above));
            let stft = Complex::<S>::new(stft.re * SCALE, stft.im * SCALE);
            let mut ahead = stft;
            if !is_first {
                let change = stft.minus(*previous);
                let momentum = S::f32s::splat(simd, MOMENTUM);
                ahead.re = change.re.mul_add(momentum, stft.re);
                ahead.im = change.im.mul_add(momentum, stft.im);
            }
            *previous = stft;
            let point = bin * of.grid.width + first;
            let magnitude = S::f32s::from_slice(simd, &of.magnitude[point..point + lanes]);
            let square = ahead.re.mul_add(ahead.re, ahead.im * ahead.im) + TINY;
            let scale = magnitude / square.sqrt();
            *value = Complex::new(ahead.re * scale, ahead.im * scale);
            (below, here) = (here, above);
        }
    }

    /// Adds the frames of a group's spectra to the next waveform.
    #[inline(always)]
    fn synthesize(&mut self, simd: S, first: usize) {
        self.frames.transform(simd, &mut self.spectrum);
        for (index, window) in self.synthesis.window.chunks_exact(2).enumerate() {
            let [even, odd] = self.frames.pair(index);
            self.overlap.add(simd, 2 * index, even * window[0]);
            self.overlap.add(simd, 2 * index + 1, odd * window[1]);
        }
        let start = first * self.synthesis.hop_length;
        self.overlap.finish(simd, &mut self.next[start..]);
    }

    /// Divides the next waveform by the sum of its windows and makes it the current
    /// one.
    #[inline(always)]
    fn finish(&mut self) {
        let gains = &self.synthesis.gains;
        for (sample, gain) in self.next.iter_mut().zip(gains) {
            *sample *= gain;
        }
        if let Some(rest) = self.next.get_mut(gains.len()..) {
            rest.fill(0.0);
        }
        std::mem::swap(&mut self.waveform, &mut self.next);
        self.next.fill(0.0);
    }
}
