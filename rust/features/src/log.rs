//! The function log1p for vectors.

use std::f32::consts::{LN_2, SQRT_2};

use fearless_simd::prelude::*;

/// log(1 + x) for x ≥ 0, with an error of at most 3 units in the last place.
/// Infinity and NaN are returned unchanged.
#[inline(always)]
pub(crate) fn log1p<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let sum = x + 1.0;
    let lost = x - (sum - 1.0);
    // sum = 2^exponent · (1 + f), with 1 + f between √½ and √2.
    let root = (SQRT_2 / 2.0).to_bits();
    let bits = sum.bitcast::<S::u32s>() - root;
    let exponent: S::f32s = (bits.bitcast::<S::i32s>() >> 23).to_float();
    let f = ((bits & 0x007f_ffff) + root).bitcast::<S::f32s>() - 1.0;
    // log(1 + f) = 2·artanh(s) with s = f / (2 + f), as a series; |s| < 0.172.
    let s = f / (f + 2.0);
    let z = s * s;
    let mut series = S::f32s::splat(simd, 2.0 / 9.0);
    for term in [2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0] {
        series = series.mul_add(z, S::f32s::splat(simd, term));
    }
    let mantissa = series.mul_add(s, lost / sum);
    let result = exponent.mul_add(S::f32s::splat(simd, LN_2), mantissa);
    x.simd_lt(f32::INFINITY).select(result, x)
}

#[cfg(test)]
mod tests {
    use fearless_simd::{dispatch, Level};

    use super::*;

    #[inline(always)]
    fn log1p_of<S: Simd>(simd: S, x: f32) -> f32 {
        log1p(simd, S::f32s::splat(simd, x))[0]
    }

    fn value(x: f32) -> f32 {
        dispatch!(Level::new(), simd => log1p_of(simd, x))
    }

    #[test]
    fn the_error_is_at_most_three_units_in_the_last_place() {
        // Every 1000th float32 from 0 to the largest.
        for bits in (0..f32::INFINITY.to_bits()).step_by(1000) {
            let x = f32::from_bits(bits);
            let exact = f64::from(x).ln_1p();
            let error = (f64::from(value(x)) - exact).abs();
            let unit = f64::from(f32::EPSILON) * exact + f64::from(f32::MIN_POSITIVE);
            assert!(
                error <= 3.0 * unit,
                "log1p({x:e}) is {}, not {exact}",
                value(x)
            );
        }
    }

    #[test]
    fn infinity_and_nan_are_returned_unchanged() {
        assert_eq!(value(f32::INFINITY), f32::INFINITY);
        assert!(value(f32::NAN).is_nan());
        assert_eq!(value(0.0), 0.0);
    }
}
