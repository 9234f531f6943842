//! A complex FFT of many frames at once, for powers of two: in place, by
//! decimation in frequency.
//!
//! With m = n / r, a pass of radix r over a block of n points replaces the points
//! i, i + m, i + 2m, … with r sums, one for each residue of the frequency modulo
//! r. This splits the block into r blocks of m points. Each block is transformed
//! completely before the next one, so that all passes but the first run in the
//! first-level cache. [`Fft::position`] is the resulting order of frequencies.
//!
//! Radix 8 is the largest whose points fit the vector registers
//! (docs/notes/rust.md has measurements of other radices).

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use fearless_simd::prelude::*;

use crate::complex::Complex;

/// Calls a method with the DFT of as many points as the radix. The closures are inlined
/// where the instruction set is known, and only as arguments can they say so.
macro_rules! with_dft {
    ($radix:expr, $simd:expr, $function:ident($($argument:expr),*)) => {
        match $radix {
            8 => $function(
                $($argument,)*
                #[inline(always)]
                |x| dft8($simd, x),
            ),
            4 => $function(
                $($argument,)*
                #[inline(always)]
                |x| dft4(x),
            ),
            _ => $function(
                $($argument,)*
                #[inline(always)]
                |x| dft2(x),
            ),
        }
    };
}

/// Unused points after each block of the first pass. Without them, the points of
/// one step of that pass would compete for the same few lines of the cache.
const PAD: usize = 1;

/// The passes of a transform, with their twiddle factors.
pub(crate) struct Fft {
    passes: Vec<Pass>,
}

struct Pass {
    radix: usize,
    /// Points of a block after the pass.
    rest: usize,
    /// Distance from one block to the next after the pass.
    stride: usize,
    /// exp(-2πi·j·q/n) for each j < n / radix, and for it each q from 1 to
    /// radix - 1.
    twiddles: Vec<[f32; 2]>,
}

impl Fft {
    /// A transform of `points` points; a power of two, at least 2.
    pub(crate) fn new(points: usize) -> Self {
        let mut passes = Vec::new();
        let mut rest = points;
        for bits in radix_bits(points.trailing_zeros()) {
            let radix = 1 << bits;
            let points = rest;
            rest /= radix;
            let factor = |i: usize, q: usize| twiddle(i * q, points);
            let twiddles = (0..rest)
                .flat_map(|i| (1..radix).map(move |q| factor(i, q)))
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

    /// Index of frequency `k` after a transform.
    pub(crate) fn position(&self, mut k: usize) -> usize {
        let mut position = 0;
        for pass in &self.passes {
            position += k % pass.radix * pass.stride;
            k /= pass.radix;
        }
        position
    }

    /// Length of the buffer of a transform, with the padding.
    pub(crate) fn length(&self) -> usize {
        let Pass {
            radix,
            rest,
            stride,
            ..
        } = self.passes[0];
        (radix - 1) * stride + rest
    }

    /// Transforms the points of `source` into `out`.
    #[inline(always)]
    pub(crate) fn transform<S: Simd>(
        &self,
        simd: S,
        source: &impl Source<S>,
        out: &mut [Complex<S>],
    ) {
        let (first, rest) = (&self.passes[0], &self.passes[1..]);
        first.run_first(simd, out, source);
        for block in out.chunks_mut(first.stride) {
            in_place(simd, rest, &mut block[..first.rest]);
        }
    }
}

/// Logarithms of the radices: as few as possible, each at most 3, in descending
/// order.
fn radix_bits(bits: u32) -> Vec<u32> {
    let passes = bits.div_ceil(3);
    (0..passes)
        .map(|i| (bits + passes - 1 - i) / passes)
        .collect()
}

/// exp(-2πi·k/n) as (re, im).
pub(crate) fn twiddle(k: usize, n: usize) -> [f32; 2] {
    let angle = -TAU * (k % n) as f64 / n as f64;
    [angle.cos() as f32, angle.sin() as f32]
}

/// Runs the passes after the first. After each pass, each block is transformed
/// completely before the next one, while it is in the cache.
#[inline(always)]
fn in_place<S: Simd>(simd: S, passes: &[Pass], block: &mut [Complex<S>]) {
    let Some((first, rest)) = passes.split_first() else {
        return;
    };
    if first.rest == 1 {
        return first.run_last(simd, block);
    }
    for block in block.chunks_exact_mut(first.radix * first.rest) {
        first.run(simd, block);
        in_place_recursive(simd, rest, block);
    }
}

/// [`in_place`], which is inlined, as a function that can be called recursively.
fn in_place_recursive<S: Simd>(simd: S, passes: &[Pass], block: &mut [Complex<S>]) {
    simd.vectorize(
        #[inline(always)]
        || in_place(simd, passes, block),
    );
}

/// Where the first pass reads its points.
pub(crate) trait Source<S: Simd> {
    fn point(&self, simd: S, index: usize) -> Complex<S>;
}

impl Pass {
    /// Runs the first pass.
    #[inline(always)]
    fn run_first<S: Simd>(&self, simd: S, block: &mut [Complex<S>], source: &impl Source<S>) {
        with_dft!(self.radix, simd, first_pass(self, simd, block, source));
    }

    /// Runs a later pass over one block.
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, block: &mut [Complex<S>]) {
        with_dft!(self.radix, simd, middle_pass(self, simd, block));
    }

    /// Runs the last pass over all of its blocks, which have a point for each sum.
    #[inline(always)]
    fn run_last<S: Simd>(&self, simd: S, points: &mut [Complex<S>]) {
        with_dft!(self.radix, simd, last_pass(points));
    }
}

/// The first pass: from `source` into `block`.
#[inline(always)]
fn first_pass<S: Simd, const R: usize>(
    pass: &Pass,
    simd: S,
    block: &mut [Complex<S>],
    source: &impl Source<S>,
    dft: impl Fn([Complex<S>; R]) -> [Complex<S>; R],
) {
    for i in 0..pass.rest {
        let sums = dft(each(
            #[inline(always)]
            |j| source.point(simd, i + j * pass.rest),
        ));
        block[i] = sums[0];
        // If it is also the last pass, all twiddle factors are 1.
        if pass.rest == 1 {
            block[1..R].copy_from_slice(&sums[1..]);
            return;
        }
        let twiddles = &pass.twiddles[i * (R - 1)..][..R - 1];
        for (q, (sum, twiddle)) in (1..).zip(sums[1..].iter().zip(twiddles)) {
            block[i + q * pass.stride] = sum.times(simd, *twiddle);
        }
    }
}

/// A pass of one block that is neither the first nor the last.
#[inline(always)]
fn middle_pass<S: Simd, const R: usize>(
    pass: &Pass,
    simd: S,
    mut block: &mut [Complex<S>],
    dft: impl Fn([Complex<S>; R]) -> [Complex<S>; R],
) {
    // Slices of the same length, whose indices need no checks.
    let parts: [&mut [Complex<S>]; R] = std::array::from_fn(
        #[inline(always)]
        |_| {
            let (part, others) = std::mem::take(&mut block).split_at_mut(pass.rest);
            block = others;
            part
        },
    );
    let twiddles = pass.twiddles.chunks_exact(R - 1);
    for (i, twiddles) in (0..pass.rest).zip(twiddles) {
        let sums = dft(each(
            #[inline(always)]
            |j| parts[j][i],
        ));
        parts[0][i] = sums[0];
        for q in 1..R {
            parts[q][i] = sums[q].times(simd, twiddles[q - 1]);
        }
    }
}

/// Replaces each R points by their DFT.
#[inline(always)]
fn last_pass<S: Simd, const R: usize>(
    points: &mut [Complex<S>],
    dft: impl Fn([Complex<S>; R]) -> [Complex<S>; R],
) {
    for block in points.as_chunks_mut().0 {
        *block = dft(*block);
    }
}

/// The values of `f` for 0 to R - 1; R is 2, 4 or 8. A loop would not be unrolled if the
/// function is large, and its values would go through memory.
#[inline(always)]
fn each<T: Copy, const R: usize>(mut f: impl FnMut(usize) -> T) -> [T; R] {
    let mut values = [f(0); R];
    values[1] = f(1);
    if R > 2 {
        values[2] = f(2);
        values[3] = f(3);
    }
    if R > 4 {
        values[4] = f(4);
        values[5] = f(5);
        values[6] = f(6);
        values[7] = f(7);
    }
    values
}

#[inline(always)]
fn dft2<S: Simd>([a, b]: [Complex<S>; 2]) -> [Complex<S>; 2] {
    [a.plus(b), a.minus(b)]
}

#[inline(always)]
fn dft4<S: Simd>([a, b, c, d]: [Complex<S>; 4]) -> [Complex<S>; 4] {
    let (even, odd) = (a.plus(c), b.plus(d));
    let (even_rest, odd_rest) = (a.minus(c), b.minus(d).times_minus_i());
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
        odd[2].times_minus_i(),
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
