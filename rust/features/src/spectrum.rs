//! The spectra of the unwindowed frames of a group.

use std::sync::Arc;

use fearless_simd::prelude::*;
use realfft::{RealFftPlanner, RealToComplex};

use crate::complex::Complex;
use crate::fft::{twiddle, Fft, Source};
use crate::frames::{Frames, Run};

/// The transform for one frame length.
pub(crate) enum Transform {
    /// Of all frames at once, for powers of two.
    Packed(Arc<Packed>),
    /// Of one frame after another, for other lengths.
    Single(Arc<dyn RealToComplex<f32>>),
}

impl Transform {
    pub(crate) fn new(n_fft: usize) -> Self {
        if n_fft.is_power_of_two() && n_fft >= 4 {
            Transform::Packed(Arc::new(Packed::new(n_fft)))
        } else {
            Transform::Single(RealFftPlanner::new().plan_fft_forward(n_fft))
        }
    }
}

/// Spectra of a group of frames.
pub(crate) trait Spectra<S: Simd> {
    /// Computes the spectra of runs of frames, together as many as there are lanes.
    fn transform(&mut self, simd: S, runs: &[Run]);

    /// Twice bin `k`.
    fn bin(&self, simd: S, k: usize) -> Complex<S>;
}

/// A real transform of N samples by a complex one of N/2 points. The real parts
/// of the points are the even samples, the imaginary parts the odd ones. Two points
/// become two bins, in their place:
///
/// ```text
/// even = Z[k] + conj Z[N/2-k]        odd = -i·exp(-2πi·k/N)·(Z[k] - conj Z[N/2-k])
/// 2 R[k] = even + odd                2 R[N/2-k] = conj(even - odd)
/// ```
pub(crate) struct Packed {
    fft: Fft,
    /// Index of `Z[k]` after the transform, and of `R[k]`, k from 0 to N/2.
    positions: Vec<u32>,
    /// exp(-2πi·k/N)
    twiddles: Vec<[f32; 2]>,
    /// Points that become two bins, but the first, in the order in which they are stored.
    pairs: Vec<Pair>,
}

/// `Z[k]` and `Z[N/2-k]`.
struct Pair {
    positions: [u32; 2],
    /// -i·exp(-2πi·k/N)
    twiddle: [f32; 2],
}

impl Packed {
    pub(crate) fn new(n_fft: usize) -> Self {
        let half = n_fft / 2;
        let fft = Fft::new(half);
        let mut positions: Vec<u32> = (0..half).map(|k| fft.position(k) as u32).collect();
        let twiddles: Vec<[f32; 2]> = (0..=half).map(|k| twiddle(k, n_fft)).collect();
        let pair = |k: usize| Pair {
            positions: [positions[k], positions[half - k]],
            twiddle: [twiddles[k][1], -twiddles[k][0]],
        };
        let mut pairs: Vec<Pair> = (1..=half / 2).map(pair).collect();
        pairs.sort_by_key(|pair| pair.positions[0]);
        // Z[N/2] is Z[0]; R[N/2] is stored after all points.
        positions.push(fft.length() as u32);
        Packed {
            fft,
            positions,
            twiddles,
            pairs,
        }
    }

    /// Makes bins of points.
    #[inline(always)]
    fn untangle<S: Simd>(&self, simd: S, data: &mut [Complex<S>]) {
        for Pair { positions, twiddle } in &self.pairs {
            let [first, second] = positions.map(|position| position as usize);
            let (here, mirror) = (data[first], data[second]);
            let even = Complex::<S>::new(here.re + mirror.re, here.im - mirror.im);
            let odd = Complex::<S>::new(here.re - mirror.re, here.im + mirror.im);
            let odd = odd.times(simd, *twiddle);
            data[first] = even.plus(odd);
            data[second] = Complex::new(even.re - odd.re, odd.im - even.im);
        }
        let zero = S::f32s::splat(simd, 0.0);
        let Complex { re, im } = data[0];
        data[0] = Complex::new((re + im) * 2.0, zero);
        data[self.fft.length()] = Complex::new((re - im) * 2.0, zero);
    }
}

/// Pairs of samples as complex numbers.
struct Samples<'a> {
    frames: &'a Frames,
}

impl<S: Simd> Source<S> for Samples<'_> {
    #[inline(always)]
    fn point(&self, simd: S, index: usize) -> Complex<S> {
        let [even, odd] = self.frames.pair(simd, index);
        Complex::new(even, odd)
    }
}

/// [`Samples`] of several runs.
struct SamplesOfRuns<'a, S: Simd> {
    frames: &'a Frames,
    later: Vec<S::mask32s>,
}

impl<S: Simd> Source<S> for SamplesOfRuns<'_, S> {
    #[inline(always)]
    fn point(&self, simd: S, index: usize) -> Complex<S> {
        let [even, odd] = self.frames.pair_of_runs(simd, index, &self.later);
        Complex::new(even, odd)
    }
}

pub(crate) struct PackedSpectra<S: Simd> {
    packed: Arc<Packed>,
    frames: Frames,
    data: Vec<Complex<S>>,
}

impl<S: Simd> PackedSpectra<S> {
    pub(crate) fn new(simd: S, packed: Arc<Packed>, frames: Frames) -> Self {
        PackedSpectra {
            frames,
            data: vec![Complex::zero(simd); packed.fft.length() + 1],
            packed,
        }
    }
}

impl<S: Simd> Spectra<S> for PackedSpectra<S> {
    #[inline(always)]
    fn transform(&mut self, simd: S, runs: &[Run]) {
        self.frames.transpose(simd, runs);
        let (fft, frames) = (&self.packed.fft, &self.frames);
        let points = fft.length();
        if frames.is_one_run() {
            fft.transform(simd, &Samples { frames }, &mut self.data[..points]);
        } else {
            let later = frames.later_runs(simd);
            let samples = SamplesOfRuns { frames, later };
            fft.transform(simd, &samples, &mut self.data[..points]);
        }
        simd.vectorize(
            #[inline(always)]
            || self.packed.untangle(simd, &mut self.data),
        );
    }

    #[inline(always)]
    fn bin(&self, _: S, k: usize) -> Complex<S> {
        self.data[self.packed.positions[k] as usize]
    }
}

/// The inverse of [`Packed`]'s transform, for a group of frames.
pub(crate) struct PackedFrames<'a, S: Simd> {
    packed: &'a Packed,
    data: Vec<Complex<S>>,
}

impl<'a, S: Simd> PackedFrames<'a, S> {
    pub(crate) fn new(simd: S, packed: &'a Packed) -> Self {
        PackedFrames {
            packed,
            data: vec![Complex::zero(simd); packed.fft.length()],
        }
    }

    /// Computes the frames of spectra, N/2 + 1 bins each. The imaginary parts of DC
    /// and Nyquist are ignored.
    #[inline(always)]
    pub(crate) fn transform(&mut self, simd: S, spectrum: &mut [Complex<S>]) {
        let last = spectrum.len() - 1;
        for bin in [0, last] {
            spectrum[bin].im = S::f32s::splat(simd, 0.0);
        }
        let source = Swapped {
            spectrum,
            twiddles: &self.packed.twiddles,
        };
        self.packed.fft.transform(simd, &source, &mut self.data);
    }

    /// Samples `2 * index` and `2 * index + 1` of every frame, N times too large.
    #[inline(always)]
    pub(crate) fn pair(&self, index: usize) -> [S::f32s; 2] {
        let point = self.data[self.packed.positions[index] as usize];
        [point.im, point.re]
    }
}

/// The points `2 Z[k]` of a real spectrum, with real and imaginary parts swapped,
/// which makes an inverse transform of the forward one:
///
/// ```text
/// 2 Z[k] = R[k] + conj R[N/2-k]  +  i·exp(2πi·k/N)·(R[k] - conj R[N/2-k])
/// ```
struct Swapped<'a, S: Simd> {
    spectrum: &'a [Complex<S>],
    twiddles: &'a [[f32; 2]],
}

impl<S: Simd> Source<S> for Swapped<'_, S> {
    #[inline(always)]
    fn point(&self, simd: S, k: usize) -> Complex<S> {
        let here = self.spectrum[k];
        let mirror = self.spectrum[self.spectrum.len() - 1 - k];
        let [re, im] = self.twiddles[k];
        let odd = Complex::<S>::new(here.re - mirror.re, here.im + mirror.im);
        let odd = odd.times(simd, [re, -im]);
        Complex::new(here.im - mirror.im + odd.re, here.re + mirror.re - odd.im)
    }
}

/// Spectra that are computed frame by frame.
pub(crate) struct SingleSpectra<S: Simd> {
    fft: Arc<dyn RealToComplex<f32>>,
    frames: Frames,
    data: Vec<Complex<S>>,
    frame: Vec<f32>,
    spectrum: Vec<realfft::num_complex::Complex<f32>>,
    scratch: Vec<realfft::num_complex::Complex<f32>>,
}

impl<S: Simd> SingleSpectra<S> {
    pub(crate) fn new(simd: S, fft: Arc<dyn RealToComplex<f32>>, frames: Frames) -> Self {
        SingleSpectra {
            frames,
            data: vec![Complex::zero(simd); fft.complex_len()],
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
        }
    }
}

impl<S: Simd> Spectra<S> for SingleSpectra<S> {
    #[inline(always)]
    fn transform(&mut self, _: S, runs: &[Run]) {
        let hop_length = self.frames.hop_length;
        let mut lanes = 0..S::f32s::LEN;
        for &run in runs {
            let samples = self.frames.window(run);
            for (place, lane) in lanes.by_ref().take(run.count).enumerate() {
                let length = self.frame.len();
                self.frame
                    .copy_from_slice(&samples[place * hop_length..][..length]);
                let done = self.fft.process_with_scratch(
                    &mut self.frame,
                    &mut self.spectrum,
                    &mut self.scratch,
                );
                debug_assert!(done.is_ok(), "the buffers have the lengths of the plan");
                for (bin, value) in self.data.iter_mut().zip(&self.spectrum) {
                    bin.re[lane] = 2.0 * value.re;
                    bin.im[lane] = 2.0 * value.im;
                }
            }
        }
    }

    #[inline(always)]
    fn bin(&self, _: S, k: usize) -> Complex<S> {
        self.data[k]
    }
}
