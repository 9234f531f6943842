//! Vectors of complex numbers, in which each lane belongs to another frame.

use fearless_simd::prelude::*;

#[derive(Clone, Copy)]
pub(crate) struct Complex<S: Simd> {
    pub(crate) re: S::f32s,
    pub(crate) im: S::f32s,
}

impl<S: Simd> Complex<S> {
    #[inline(always)]
    pub(crate) fn new(re: S::f32s, im: S::f32s) -> Self {
        Complex { re, im }
    }

    #[inline(always)]
    pub(crate) fn zero(simd: S) -> Self {
        let zero = S::f32s::splat(simd, 0.0);
        Complex::new(zero, zero)
    }

    #[inline(always)]
    pub(crate) fn plus(self, other: Self) -> Self {
        Complex::new(self.re + other.re, self.im + other.im)
    }

    #[inline(always)]
    pub(crate) fn minus(self, other: Self) -> Self {
        Complex::new(self.re - other.re, self.im - other.im)
    }

    /// The product with -i.
    #[inline(always)]
    pub(crate) fn times_minus_i(self) -> Self {
        Complex::new(self.im, -self.re)
    }

    /// The product with `factor`, (re, im), which is the same for all frames.
    #[inline(always)]
    pub(crate) fn times(self, simd: S, factor: [f32; 2]) -> Self {
        let (re, im) = (
            S::f32s::splat(simd, factor[0]),
            S::f32s::splat(simd, factor[1]),
        );
        Complex::new(
            self.re.mul_sub(re, self.im * im),
            self.re.mul_add(im, self.im * re),
        )
    }
}
