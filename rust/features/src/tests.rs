//! The kernel with every instruction set of this machine, compared with the
//! definition in float64.

#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;

use fearless_simd::Level;
use proptest::prelude::*;

use crate::{Band, Compression, Error, Kernel, Shape, Sum};

/// The instruction sets of this machine, in ascending order.
pub(crate) fn levels() -> Vec<Level> {
    let level = Level::new();
    #[allow(unused_mut)]
    let mut levels = vec![Level::baseline()];
    #[cfg(target_arch = "x86_64")]
    {
        levels.extend(level.as_sse4_2().map(Level::Sse4_2));
        levels.extend(level.as_avx2().map(Level::Avx2));
    }
    levels.push(level);
    levels
}

/// Triangular bands whose corners are spaced quadratically over the bins.
fn triangles(n_fft: usize, count: usize) -> Vec<Band> {
    let top = (n_fft / 2) as f64;
    let corner = |i: usize| top * (i as f64 / (count + 1) as f64).powi(2);
    let band = |m: usize| {
        let (low, peak, high) = (corner(m), corner(m + 1), corner(m + 2));
        let weight = |k: usize| {
            let bin = k as f64;
            ((bin - low) / (peak - low)).min((high - bin) / (high - peak))
        };
        let bins: Vec<usize> = (1..n_fft / 2).filter(|&k| weight(k) > 1e-9).collect();
        Band {
            first: bins.first().copied().unwrap_or(0),
            weights: bins.iter().map(|&k| weight(k)).collect(),
            centre: peak,
            half_support: (high - low) / 2.0 + 1.0,
        }
    };
    (0..count).map(band).collect()
}

fn noise(samples: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state) / f64::from(u32::MAX) - 0.5
    };
    let tone = |t: usize| 0.5 * (t as f64 * (0.05 + 1e-5 * t as f64)).sin();
    (0..samples).map(|t| (tone(t) + next()) as f32).collect()
}

/// Channel 0, mean reassigned frequency and power of each band, `[band][frame]`, by
/// definition: two windows, and a sum over samples for each bin.
fn definition(clip: &[f32], shape: Shape, bands: &[Band]) -> Vec<Vec<(f64, f64, f64)>> {
    let Shape {
        n_fft, hop_length, ..
    } = shape;
    let padding = if shape.center { n_fft / 2 } else { 0 };
    let last = clip.len() as isize - 1;
    let sample = |index: isize| {
        let index = index.abs();
        f64::from(clip[index.min(2 * last - index) as usize])
    };
    let mut features = vec![Vec::new(); bands.len()];
    for frame in 0..=(clip.len() + 2 * padding - n_fft) / hop_length {
        let start = (frame * hop_length) as isize - padding as isize;
        let bin = |k: usize| {
            let (mut x, mut d) = ((0.0, 0.0), (0.0, 0.0));
            for n in 0..n_fft {
                let angle = TAU * n as f64 / n_fft as f64;
                let turn = TAU * ((k * n) % n_fft) as f64 / n_fft as f64;
                let value = sample(start + n as isize);
                let (window, slope) = (0.5 - 0.5 * angle.cos(), 0.5 * angle.sin());
                x = (
                    x.0 + value * window * turn.cos(),
                    x.1 - value * window * turn.sin(),
                );
                d = (
                    d.0 + value * slope * turn.cos(),
                    d.1 - value * slope * turn.sin(),
                );
            }
            (x.0 * x.0 + x.1 * x.1, -(d.1 * x.0 - d.0 * x.1))
        };
        let bins: Vec<(f64, f64)> = (0..=n_fft / 2).map(bin).collect();
        for (band, features) in bands.iter().zip(&mut features) {
            let (mut power, mut moment, mut magnitude) = (0.0, 0.0, 0.0);
            for (k, weight) in (band.first..).zip(&band.weights) {
                power += weight * bins[k].0;
                magnitude += weight * bins[k].0.sqrt();
                moment += weight * ((k as f64 - band.centre) * bins[k].0 + bins[k].1);
            }
            let sum = match shape.sum {
                Sum::Power => power,
                Sum::Magnitude => magnitude,
            };
            let value = match shape.compression {
                Compression::None => sum,
                Compression::Log1p => sum.ln_1p(),
                Compression::Log { floor, factor } => {
                    sum.max(f64::from(floor)).ln() * f64::from(factor)
                }
            };
            features.push((value, moment / band.half_support / power, power));
        }
    }
    features
}

fn kernel_at(level: Level, shape: Shape, bands: &[Band]) -> Kernel {
    let mut kernel = Kernel::new(shape, bands).unwrap();
    kernel.set_level(level);
    kernel
}

fn computed(kernel: &Kernel, clips: &[f32], samples: usize, threads: usize) -> Vec<f32> {
    let row: usize = kernel.row_shape(samples).iter().product();
    let mut out = vec![f32::NAN; clips.len() / samples * row];
    kernel.compute(clips, samples, &mut out, threads).unwrap();
    out
}

fn check(shape: Shape, count: usize, samples: usize, seed: u32) {
    let bands = triangles(shape.n_fft, count);
    let clip = noise(samples, seed);
    let expected = definition(&clip, shape, &bands);
    let frames = expected[0].len();
    let mut loud = 0;
    for level in levels() {
        let kernel = kernel_at(level, shape, &bands);
        let out = computed(&kernel, &clip, samples, 1);
        let (magnitude, frequency) = out.split_at(count * frames);
        for (place, &(value, shift, power)) in expected.iter().flatten().enumerate() {
            let error = (f64::from(magnitude[place]) - value).abs();
            assert!(
                error < 1e-4 * value.abs().max(1.0),
                "{level:?} {shape:?} channel 0 at {place}: off by {error}"
            );
            if power > 1e-2 {
                loud += 1;
                let error = (f64::from(frequency[place]) - shift.clamp(-2.0, 2.0)).abs();
                assert!(
                    error < 1e-3,
                    "{level:?} {shape:?} channel 1 at {place}: off by {error}"
                );
            } else if power < 0.5e-5 {
                assert_eq!(frequency[place], 0.0);
            }
        }
        let without = Shape {
            if_masking_threshold: None,
            ..shape
        };
        let alone = computed(&kernel_at(level, without, &bands), &clip, samples, 1);
        assert_eq!(alone, magnitude);
    }
    assert!(loud > 0, "no band was loud enough for a check of channel 1");
}

fn shape(n_fft: usize, hop_length: usize) -> Shape {
    Shape {
        n_fft,
        hop_length,
        center: true,
        sum: Sum::Power,
        compression: Compression::Log1p,
        if_masking_threshold: Some(1e-5),
    }
}

#[test]
fn every_power_of_two_matches_the_definition() {
    for bits in 2..=12 {
        let n_fft = 1 << bits;
        check(
            shape(n_fft, n_fft / 4),
            n_fft.min(36) / 4,
            n_fft / 2 + 3 * n_fft / 4,
            bits,
        );
    }
}

#[test]
fn other_frame_lengths_match_the_definition() {
    for n_fft in [6, 10, 14, 24, 94, 400, 1000] {
        check(shape(n_fft, n_fft / 3), 2, 2 * n_fft, 7);
    }
}

#[test]
fn several_groups_of_frames_match_the_definition() {
    check(shape(64, 16), 12, 16 * 37 + 5, 1);
    check(shape(64, 1), 6, 83, 2);
    check(shape(64, 64), 6, 64 * 19, 3);
    check(shape(64, 100), 6, 64 * 19, 4);
}

#[test]
fn other_frames_sums_and_compressions_match_the_definition() {
    let log = Compression::Log {
        floor: 0.1,
        factor: 4.5,
    };
    for center in [true, false] {
        for sum in [Sum::Power, Sum::Magnitude] {
            for compression in [Compression::None, Compression::Log1p, log] {
                for n_fft in [64, 50] {
                    let shape = Shape {
                        center,
                        sum,
                        compression,
                        ..shape(n_fft, 20)
                    };
                    check(shape, 6, 20 * 37 + 5, 5);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn arbitrary_shapes_match_the_definition(half in 8_usize..70, hop in 1_usize..150, count in 1_usize..40, more in 1_usize..300, seed: u32) {
        let n_fft = 2 * half;
        prop_assume!(triangles(n_fft, count).iter().any(|band| band.weights.iter().sum::<f64>() > 0.2));
        check(shape(n_fft, hop), count, half + more, seed);
    }
}

#[test]
fn threads_and_other_clips_do_not_change_the_result() {
    let shape = shape(1024, 256);
    let samples = 30_000;
    let clips: Vec<f32> = (0..7).flat_map(|seed| noise(samples, seed)).collect();
    for level in levels() {
        let kernel = kernel_at(level, shape, &triangles(1024, 40));
        let alone: Vec<f32> = clips
            .chunks(samples)
            .flat_map(|clip| computed(&kernel, clip, samples, 1))
            .collect();
        for threads in [1, 2, 3, 100] {
            assert_eq!(computed(&kernel, &clips, samples, threads), alone);
        }
    }
}

#[test]
fn frames_of_several_clips_and_threads_do_not_change_the_result() {
    // Clips that are shorter than a group, with 3 to 13 frames, and one that is cut.
    for (shape, samples, clips) in [
        (shape(64, 16), 35, 40),
        (shape(64, 16), 200, 9),
        (shape(64, 100), 1000, 7),
        (shape(50, 10), 60, 9),
        (shape(64, 16), 300_000, 1),
    ] {
        let waveforms: Vec<f32> = (0..clips).flat_map(|seed| noise(samples, seed)).collect();
        for level in levels() {
            let kernel = kernel_at(level, shape, &triangles(shape.n_fft, 6));
            let alone: Vec<f32> = waveforms
                .chunks(samples)
                .flat_map(|clip| computed(&kernel, clip, samples, 1))
                .collect();
            for threads in [1, 2, 3] {
                let together = computed(&kernel, &waveforms, samples, threads);
                assert_eq!(together, alone, "{level:?} {shape:?} {threads}");
            }
        }
    }
}

#[test]
fn non_finite_samples_only_affect_their_frames() {
    let shape = shape(64, 16);
    let (samples, at) = (1_000, 500);
    let clean = noise(samples, 3);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut clip = clean.clone();
        clip[at] = bad;
        for level in levels() {
            let kernel = kernel_at(level, shape, &triangles(64, 10));
            let [channels, bands, frames] = kernel.row_shape(samples);
            let expected = computed(&kernel, &clean, samples, 1);
            let actual = computed(&kernel, &clip, samples, 1);
            for place in 0..channels * bands * frames {
                let start = place % frames * 16;
                if (start..start + 64).contains(&(at + 32)) {
                    assert!(!actual[place].is_finite(), "{level:?} at {place}");
                } else {
                    assert_eq!(actual[place], expected[place]);
                }
            }
        }
    }
}

#[test]
fn silence_and_tiny_numbers_give_zeros() {
    for level in levels() {
        let kernel = kernel_at(level, shape(64, 16), &triangles(64, 10));
        for value in [0.0, 1e-40, f32::MIN_POSITIVE] {
            let out = computed(&kernel, &[value; 300], 300, 1);
            assert!(out.iter().all(|&value| value == 0.0));
        }
    }
}

#[test]
fn errors_name_the_invalid_argument() {
    let bands = triangles(64, 4);
    let error = |shape, bands: &[Band]| {
        let Err(Error::Invalid(reason)) = Kernel::new(shape, bands) else {
            panic!("{shape:?} was accepted");
        };
        reason
    };
    assert!(error(shape(63, 16), &bands).starts_with("n_fft=63 must be even"));
    assert!(error(shape(2, 1), &[]).starts_with("n_fft=2 must be"));
    assert!(error(shape(64, 0), &bands).starts_with("hop_length=0 must be"));
    assert!(error(shape(32, 8), &bands).contains("between DC and Nyquist, bins 0 and 16"));
    let thrice = [bands[3].clone(), bands[3].clone(), bands[3].clone()];
    assert!(error(shape(64, 16), &thrice).contains("lies in 3 bands"));

    let kernel = Kernel::new(shape(64, 16), &bands).unwrap();
    let mut out = vec![0.0; 2 * 4 * 7];
    let error = |clips: &[f32], samples, out: &mut [f32]| {
        kernel
            .compute(clips, samples, out, 1)
            .unwrap_err()
            .to_string()
    };
    assert!(error(&[0.0; 32], 32, &mut out).contains("more than n_fft/2 = 32"));
    assert!(error(&[0.0; 150], 100, &mut out).contains("clips of 100"));
    assert!(error(&[0.0; 100], 100, &mut out[1..]).contains("rows of 56"));
    assert!(kernel.compute(&[], 100, &mut [], 1).is_ok());
}
