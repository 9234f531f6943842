//! Logarithms, powers, cosine and sine of vectors.

use std::f32::consts::{LN_2, LOG2_E, SQRT_2};
use std::f64::consts::{LN_2 as LN_2_F64, TAU};

use fearless_simd::prelude::*;

/// log(1 + x) for x ≥ 0, with an error of at most 3 units in the last place.
/// Infinity and NaN are returned unchanged.
#[inline(always)]
pub(crate) fn log1p<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let sum = x + 1.0;
    let lost = x - (sum - 1.0);
    let (exponent, mantissa) = log_parts(simd, sum, lost / sum);
    let result = exponent.mul_add(S::f32s::splat(simd, LN_2), mantissa);
    x.simd_lt(f32::INFINITY).select(result, x)
}

/// log(x) for normal numbers x > 0, with an error of a few units in the last place.
#[inline(always)]
pub(crate) fn log<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let (exponent, mantissa) = log_parts(simd, x, S::f32s::splat(simd, 0.0));
    exponent.mul_add(S::f32s::splat(simd, LN_2), mantissa)
}

/// x to the power of `exponent` for x ≥ 0, from 2^-126 to 2^127; 0 for 0.
#[inline(always)]
pub(crate) fn pow<S: Simd>(simd: S, x: S::f32s, exponent: f32) -> S::f32s {
    let (whole, mantissa) = log_parts(simd, x, S::f32s::splat(simd, 0.0));
    let log2 = whole.mul_add(
        S::f32s::splat(simd, exponent),
        mantissa * (exponent * LOG2_E),
    );
    x.simd_gt(0.0)
        .select(exp2(simd, log2), S::f32s::splat(simd, 0.0))
}

/// 2^x, where x is clamped to between -126 and 127.
#[inline(always)]
fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = x.max(-126.0).min(127.0);
    let whole = x.round_ties_even();
    let rest = x - whole;
    // The Taylor series; |rest| ≤ 1/2.
    let mut series = S::f32s::splat(simd, 0.0);
    for term in const { exp2_terms() } {
        series = series.mul_add(rest, S::f32s::splat(simd, term));
    }
    let scale = (whole.to_int::<S::i32s>() + 127) << 23;
    series * scale.bitcast::<S::f32s>()
}

/// ln(2)^n / n!, n from 7 to 0.
const fn exp2_terms() -> [f32; 8] {
    let mut terms = [1.0; 8];
    let (mut term, mut n) = (1.0, 1);
    while n < 8 {
        term *= LN_2_F64 / n as f64;
        terms[7 - n] = term as f32;
        n += 1;
    }
    terms
}

/// Cosine and sine of an angle from -1/2 to 1/2 turns, with an error of 2e-7.
#[inline(always)]
pub(crate) fn cos_sin<S: Simd>(simd: S, turns: S::f32s) -> [S::f32s; 2] {
    let quarters = (turns * 4.0).round_ties_even();
    let angle = (turns - quarters * 0.25) * TAU as f32;
    let square = angle * angle;
    // The Taylor series; |angle| ≤ π/4.
    let mut sine = S::f32s::splat(simd, 1.0 / 362_880.0);
    for term in [-1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0] {
        sine = sine.mul_add(square, S::f32s::splat(simd, term));
    }
    let sine = sine * angle;
    let mut cosine = S::f32s::splat(simd, 1.0 / 40_320.0);
    for term in [-1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0] {
        cosine = cosine.mul_add(square, S::f32s::splat(simd, term));
    }
    // -2 to 2 quarters: an odd number exchanges the two; the signs are those of the quadrant.
    let count = quarters.abs();
    let odd = count.simd_eq(1.0);
    let half = count.simd_eq(2.0);
    let (x, y) = (odd.select(sine, cosine), odd.select(cosine, sine));
    let x = (half | quarters.simd_eq(1.0)).select(-x, x);
    let y = (half | quarters.simd_eq(-1.0)).select(-y, y);
    [x, y]
}

/// The exponent and the natural logarithm of the mantissa of x, plus `addend`:
/// x = 2^exponent · (1 + f), with 1 + f between √½ and √2.
#[inline(always)]
fn log_parts<S: Simd>(simd: S, x: S::f32s, addend: S::f32s) -> (S::f32s, S::f32s) {
    let root = (SQRT_2 / 2.0).to_bits();
    let bits = x.bitcast::<S::u32s>() - root;
    let exponent: S::f32s = (bits.bitcast::<S::i32s>() >> 23).to_float();
    let f = ((bits & 0x007f_ffff) + root).bitcast::<S::f32s>() - 1.0;
    // log(1 + f) = 2·artanh(s) with s = f / (2 + f), as a series; |s| < 0.172.
    let s = f / (f + 2.0);
    let z = s * s;
    let mut series = S::f32s::splat(simd, 2.0 / 9.0);
    for term in [2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0] {
        series = series.mul_add(z, S::f32s::splat(simd, term));
    }
    (exponent, series.mul_add(s, addend))
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

    #[inline(always)]
    fn others_of<S: Simd>(simd: S, x: f32) -> [f32; 4] {
        let x = S::f32s::splat(simd, x);
        let [cosine, sine] = cos_sin(simd, x - x.round_ties_even());
        [log(simd, x)[0], pow(simd, x, 1.8)[0], cosine[0], sine[0]]
    }

    #[test]
    fn logarithms_powers_and_sines_are_those_of_f64() {
        for step in 0..100_000 {
            let x = (f64::from(step) * 4e-4 - 20.0).exp() as f32;
            let [log, pow, cosine, sine] = dispatch!(Level::new(), simd => others_of(simd, x));
            let x = f64::from(x);
            assert!(
                (f64::from(log) - x.ln()).abs() < 2e-7 * (1.0 + x.ln().abs()),
                "log {x}"
            );
            assert!((f64::from(pow) / x.powf(1.8) - 1.0).abs() < 6e-6, "pow {x}");
            let (y, z) = (TAU * x.fract()).sin_cos();
            assert!((f64::from(cosine) - z).abs() < 3e-7, "cos {x}");
            assert!((f64::from(sine) - y).abs() < 3e-7, "sin {x}");
        }
        assert_eq!(
            dispatch!(Level::new(), simd => others_of(simd, 0.0))[1],
            0.0
        );
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
