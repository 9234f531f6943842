//! The spectrum of the unwindowed frames of a group, bin by bin.

use std::sync::Arc;

use fearless_simd::prelude::*;
use realfft::{RealFftPlanner, RealToComplex};

use crate::complex::Complex;
use crate::fft::{unit, Fft};
use crate::frames::Frames;

/// How spectra of a length are made.
pub(crate) enum Transform {
    /// All frames at once, for powers of two.
    Packed(Packed),
    /// One frame after another, for other lengths.
    Single(Arc<dyn RealToComplex<f32>>),
}

impl Transform {
    pub(crate) fn new(n_fft: usize) -> Self {
        if n_fft.is_power_of_two() && n_fft >= 4 {
            Transform::Packed(Packed::new(n_fft))
        } else {
            Transform::Single(RealFftPlanner::new().plan_fft_forward(n_fft))
        }
    }
}

/// Spectra of a group of frames.
pub(crate) trait Spectra<S: Simd> {
    /// Takes up the frames of a clip from `first` on.
    fn transform(&mut self, simd: S, clip: &[f32], first: usize);

    /// Twice bin `k`.
    fn bin(&self, simd: S, k: usize) -> Complex<S>;
}

/// A real transform of N points through a complex one of N/2, whose points are
/// the even samples and, as imaginary parts, the odd ones:
///
/// ```text
/// 2 R[k] = Z[k] + conj Z[N/2-k]  -  i·exp(-2πi·k/N)·(Z[k] - conj Z[N/2-k])
/// ```
pub(crate) struct Packed {
    fft: Fft,
    /// Where Z[k] is, k from 0 to N/2; the last is the first.
    positions: Vec<u32>,
    /// exp(-2πi·k/N)
    units: Vec<[f32; 2]>,
}

impl Packed {
    fn new(n_fft: usize) -> Self {
        let half = n_fft / 2;
        let fft = Fft::new(half);
        Packed {
            positions: (0..=half).map(|k| fft.position(k % half) as u32).collect(),
            units: (0..=half).map(|k| unit(k, n_fft)).collect(),
            fft,
        }
    }
}

pub(crate) struct PackedSpectra<'a, S: Simd> {
    packed: &'a Packed,
    frames: Frames,
    data: Vec<Complex<S>>,
}

impl<'a, S: Simd> PackedSpectra<'a, S> {
    pub(crate) fn new(simd: S, packed: &'a Packed, frames: Frames) -> Self {
        PackedSpectra {
            packed,
            frames,
            data: vec![Complex::zero(simd); packed.fft.length()],
        }
    }
}

impl<S: Simd> Spectra<S> for PackedSpectra<'_, S> {
    #[inline(always)]
    fn transform(&mut self, simd: S, clip: &[f32], first: usize) {
        self.frames.turn(simd, clip, first);
        self.packed
            .fft
            .transform(simd, &self.frames, &mut self.data);
    }

    #[inline(always)]
    fn bin(&self, simd: S, k: usize) -> Complex<S> {
        let Packed {
            positions, units, ..
        } = self.packed;
        let here = self.data[positions[k] as usize];
        let mirror = self.data[positions[positions.len() - 1 - k] as usize];
        let even = Complex::<S>::new(here.re + mirror.re, here.im - mirror.im);
        let odd = Complex::<S>::new(here.re - mirror.re, here.im + mirror.im);
        even.plus(odd.times(simd, units[k]).turned())
    }
}

/// Spectra that are made frame by frame.
pub(crate) struct SingleSpectra<'a, S: Simd> {
    fft: &'a dyn RealToComplex<f32>,
    frames: Frames,
    data: Vec<Complex<S>>,
    frame: Vec<f32>,
    spectrum: Vec<realfft::num_complex::Complex<f32>>,
    scratch: Vec<realfft::num_complex::Complex<f32>>,
}

impl<'a, S: Simd> SingleSpectra<'a, S> {
    pub(crate) fn new(simd: S, fft: &'a dyn RealToComplex<f32>, frames: Frames) -> Self {
        SingleSpectra {
            fft,
            frames,
            data: vec![Complex::zero(simd); fft.complex_len()],
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
        }
    }
}

impl<S: Simd> Spectra<S> for SingleSpectra<'_, S> {
    #[inline(always)]
    fn transform(&mut self, _: S, clip: &[f32], first: usize) {
        let hop_length = self.frames.hop_length;
        let samples = self.frames.window(clip, first);
        for lane in 0..S::f32s::LEN {
            let length = self.frame.len();
            self.frame
                .copy_from_slice(&samples[lane * hop_length..][..length]);
            let done = self.fft.process_with_scratch(
                &mut self.frame,
                &mut self.spectrum,
                &mut self.scratch,
            );
            debug_assert!(done.is_ok(), "all are as long as it asked for");
            for (bin, value) in self.data.iter_mut().zip(&self.spectrum) {
                bin.re[lane] = 2.0 * value.re;
                bin.im[lane] = 2.0 * value.im;
            }
        }
    }

    #[inline(always)]
    fn bin(&self, _: S, k: usize) -> Complex<S> {
        self.data[k]
    }
}
