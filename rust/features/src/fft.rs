//! A complex FFT of many frames at once, of a power of two points: in place, by
//! decimation in frequency.
//!
//! A pass of radix r over a block of n points, m = n / r, turns points i, i + m,
//! i + 2m, … into r sums, one for each residue of the frequency modulo r, and so
//! the block into r blocks of m points. Each is transformed to its end before
//! the next, so that all passes but the first run in the cache nearest to the
//! core. Frequencies end where [`Fft::position`] says.
//!
//! Radix 8 is the largest that registers hold. Larger radices first, or 16, were
//! slower by up to half.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use fearless_simd::prelude::*;

use crate::complex::Complex;
use crate::frames::Frames;

/// What is left free after each block of the first pass: without it, the points
/// that a pass takes together would all be in the same few lines of the cache.
const PAD: usize = 1;

/// The passes of a transform, with their twiddles.
pub(crate) struct Fft {
    passes: Vec<Pass>,
}

struct Pass {
    radix: usize,
    /// Points of a block after the pass.
    rest: usize,
    /// From one block to the next.
    stride: usize,
    /// exp(-2πi·i·q/n), q from 1 to radix - 1, for each i in turn.
    twiddles: Vec<[f32; 2]>,
}

impl Fft {
    /// A transform of `points`, a power of two and at least 2.
    pub(crate) fn new(points: usize) -> Self {
        let mut passes = Vec::new();
        let mut rest = points;
        for bits in radix_bits(points.trailing_zeros()) {
            let radix = 1 << bits;
            let points = rest;
            rest /= radix;
            let turn = |i: usize, q: usize| unit(i * q, points);
            let twiddles = (0..rest)
                .flat_map(|i| (1..radix).map(move |q| turn(i, q)))
                .collect();
            passes.push(Pass {
                radix,
                rest,
                stride: if passes.is_empty() && rest > 1 {
                    rest + PAD
                } else {
                    rest
                },
                twiddles,
            });
        }
        Fft { passes }
    }

    /// Where frequency `k` is after a transform.
    pub(crate) fn position(&self, mut k: usize) -> usize {
        let mut position = 0;
        for pass in &self.passes {
            position += k % pass.radix * pass.stride;
            k /= pass.radix;
        }
        position
    }

    /// Numbers that a transform works on.
    pub(crate) fn length(&self) -> usize {
        let Pass {
            radix,
            rest,
            stride,
            ..
        } = self.passes[0];
        (radix - 1) * stride + rest
    }

    /// Transforms `frames` into `out`.
    #[inline(always)]
    pub(crate) fn transform<S: Simd>(&self, simd: S, frames: &Frames, out: &mut [Complex<S>]) {
        let (first, rest) = (&self.passes[0], &self.passes[1..]);
        first.run(simd, out, &Samples { frames });
        for block in out.chunks_mut(first.stride) {
            in_place(simd, rest, &mut block[..first.rest]);
        }
    }
}

/// Radices as powers of two: as few as can be of at most 8, the larger first.
fn radix_bits(bits: u32) -> Vec<u32> {
    let passes = bits.div_ceil(3);
    (0..passes)
        .map(|i| (bits + passes - 1 - i) / passes)
        .collect()
}

/// exp(-2πi·k/n)
pub(crate) fn unit(k: usize, n: usize) -> [f32; 2] {
    let angle = -TAU * (k % n) as f64 / n as f64;
    [angle.cos() as f32, angle.sin() as f32]
}

/// The passes after the first. What follows a pass of a block does so before
/// the next block, while the block is near.
#[inline(always)]
fn in_place<S: Simd>(simd: S, passes: &[Pass], block: &mut [Complex<S>]) {
    let Some((first, rest)) = passes.split_first() else {
        return;
    };
    for block in block.chunks_exact_mut(first.radix * first.rest) {
        first.run(simd, block, &InPlace);
        deeper(simd, rest, block);
    }
}

/// The same, as a function that can call itself.
fn deeper<S: Simd>(simd: S, passes: &[Pass], block: &mut [Complex<S>]) {
    simd.vectorize(
        #[inline(always)]
        || in_place(simd, passes, block),
    );
}

/// Where a pass reads from.
trait Source<S: Simd> {
    fn point(&self, simd: S, block: &[Complex<S>], index: usize) -> Complex<S>;
}

struct Samples<'a> {
    frames: &'a Frames,
}

impl<S: Simd> Source<S> for Samples<'_> {
    #[inline(always)]
    fn point(&self, simd: S, _: &[Complex<S>], index: usize) -> Complex<S> {
        let even = self.frames.sample(simd, 2 * index);
        Complex::new(even, self.frames.sample(simd, 2 * index + 1))
    }
}

struct InPlace;

impl<S: Simd> Source<S> for InPlace {
    #[inline(always)]
    fn point(&self, _: S, block: &[Complex<S>], index: usize) -> Complex<S> {
        block[index]
    }
}

impl Pass {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, block: &mut [Complex<S>], source: &impl Source<S>) {
        match self.radix {
            8 => self.run_radix::<S, 8>(
                simd,
                block,
                source,
                #[inline(always)]
                |x| dft8(simd, x),
            ),
            4 => self.run_radix::<S, 4>(
                simd,
                block,
                source,
                #[inline(always)]
                |x| dft4(x),
            ),
            _ => self.run_radix::<S, 2>(
                simd,
                block,
                source,
                #[inline(always)]
                |x| dft2(x),
            ),
        }
    }

    #[inline(always)]
    fn run_radix<S: Simd, const R: usize>(
        &self,
        simd: S,
        block: &mut [Complex<S>],
        source: &impl Source<S>,
        dft: impl Fn([Complex<S>; R]) -> [Complex<S>; R],
    ) {
        for i in 0..self.rest {
            let mut points = [Complex::zero(simd); R];
            for (j, point) in points.iter_mut().enumerate() {
                *point = source.point(simd, block, i + j * self.rest);
            }
            let sums = dft(points);
            block[i] = sums[0];
            // The last pass has a single i, and nothing to turn.
            if self.rest == 1 {
                block[1..R].copy_from_slice(&sums[1..]);
                continue;
            }
            let twiddles = &self.twiddles[i * (R - 1)..][..R - 1];
            for (q, (sum, twiddle)) in (1..).zip(sums[1..].iter().zip(twiddles)) {
                block[i + q * self.stride] = sum.times(simd, *twiddle);
            }
        }
    }
}

#[inline(always)]
fn dft2<S: Simd>([a, b]: [Complex<S>; 2]) -> [Complex<S>; 2] {
    [a.plus(b), a.minus(b)]
}

#[inline(always)]
fn dft4<S: Simd>([a, b, c, d]: [Complex<S>; 4]) -> [Complex<S>; 4] {
    let (even, odd) = (a.plus(c), b.plus(d));
    let (even_rest, odd_rest) = (a.minus(c), b.minus(d).turned());
    [
        even.plus(odd),
        even_rest.plus(odd_rest),
        even.minus(odd),
        even_rest.minus(odd_rest),
    ]
}

#[inline(always)]
fn dft8<S: Simd>(simd: S, x: [Complex<S>; 8]) -> [Complex<S>; 8] {
    const R: f32 = FRAC_1_SQRT_2 as f32;
    let even = dft4([x[0], x[2], x[4], x[6]]);
    let odd = dft4([x[1], x[3], x[5], x[7]]);
    let odd = [
        odd[0],
        odd[1].times(simd, [R, -R]),
        odd[2].turned(),
        odd[3].times(simd, [-R, -R]),
    ];
    [
        even[0].plus(odd[0]),
        even[1].plus(odd[1]),
        even[2].plus(odd[2]),
        even[3].plus(odd[3]),
        even[0].minus(odd[0]),
        even[1].minus(odd[1]),
        even[2].minus(odd[2]),
        even[3].minus(odd[3]),
    ]
}
