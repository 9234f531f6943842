//! The inverse with every instruction set of this machine.

#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;

use super::spectrogram::Grid;
use super::tree::Tree;
use super::{FitTables, Inverse, Matrices, Sparse};
use crate::tests::levels;
use crate::{Band, Kernel, Shape};

const N_FFT: usize = 256;
const HOP: usize = 64;
const BINS: usize = N_FFT / 2 + 1;

fn diagonal(rows: usize, columns: usize, shift: usize) -> Sparse {
    let mut entries = Vec::new();
    let mut offsets = vec![0];
    for row in 0..rows {
        let column = (row + shift).checked_sub(1).filter(|&c| c < columns);
        entries.extend(column.map(|column| (column as u32, 1.0)));
        offsets.push(entries.len() as u32);
    }
    Sparse::new(entries, offsets, columns).unwrap()
}

/// A band for each bin but the outermost, so that the power of the bins is known.
fn bin_bands() -> (Vec<Band>, FitTables) {
    let bands = BINS - 2;
    let band = |bin| Band {
        first: bin,
        weights: vec![1.0],
        centre: bin as f64,
        half_support: 1.0,
    };
    let bins = Matrices {
        to_targets: diagonal(bands, BINS, 2),
        from_targets: diagonal(BINS, bands, 0),
        spread: diagonal(BINS, bands, 0),
    };
    let tables = FitTables {
        bins,
        frequency: None,
    };
    ((1..BINS - 1).map(band).collect(), tables)
}

#[test]
fn a_glide_and_a_click_come_back_with_every_instruction_set() {
    let (bands, tables) = bin_bands();
    let shape = Shape {
        n_fft: N_FFT,
        hop_length: HOP,
        center: true,
        sum: crate::Sum::Power,
        compression: crate::Compression::Log1p,
        if_masking_threshold: None,
    };
    let kernel = Kernel::new(shape, &bands).unwrap();
    let samples = 40 * HOP + 17;
    let glide = |t: usize| (TAU * (0.05 + 1e-5 * t as f64) * t as f64).sin();
    let click = |t: usize| f64::from(u8::from(t == 1_000));
    let clips: Vec<f32> = (0..samples)
        .map(glide)
        .chain((0..samples).map(click))
        .map(|value| value as f32)
        .collect();
    let [_, _, frames] = kernel.row_shape(samples);
    let features_of = |clips: &[f32]| {
        let mut features = vec![0.0; 2 * bands.len() * frames];
        kernel.compute(clips, samples, &mut features, 1).unwrap();
        features
    };
    let power = |features: &[f32]| -> Vec<f64> {
        let values = features.iter();
        values
            .map(|&value| f64::from(value).exp_m1().sqrt())
            .collect()
    };
    let features = features_of(&clips);
    let before = power(&features);
    for level in levels() {
        let mut inverse = Inverse::new(N_FFT, HOP, tables.clone()).unwrap();
        inverse.set_level(level);
        let mut out = vec![0.0; 2 * samples];
        inverse
            .compute(&features, frames, 8, samples, &mut out, 2)
            .unwrap();
        let after = power(&features_of(&out));
        for (one, other) in before
            .chunks(before.len() / 2)
            .zip(after.chunks(before.len() / 2))
        {
            let norm: f64 = one.iter().map(|value| value * value).sum();
            let error: f64 = one.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
            assert!(
                (error / norm).sqrt() < 0.1,
                "{level:?}: {}",
                (error / norm).sqrt()
            );
        }
        // The click stays where it was; its sign is arbitrary.
        let energy = |part: &[f32]| part.iter().map(|value| value * value).sum::<f32>();
        let click = &out[samples..];
        assert!(energy(&click[990..1_011]) > 0.8 * energy(click));
        assert!(energy(click) > 0.5);
    }
}

/// Prim's algorithm: the phase of each point, summed along the heaviest paths.
fn prim(grid: Grid, power: &[f32], root: usize) -> Vec<usize> {
    let mut parent = vec![usize::MAX; grid.points()];
    parent[root] = root;
    let mut tree = vec![root];
    while tree.len() < grid.bins * grid.frames {
        let mut best: Option<((f32, usize), usize, usize)> = None;
        for &from in &tree {
            let (bin, frame) = (from / grid.width, from % grid.width);
            let neighbours = [
                (frame + 1 < grid.frames).then(|| (from, from + 1)),
                (frame > 0).then(|| (from - 1, from.wrapping_sub(1))),
                (bin + 1 < grid.bins).then(|| (grid.points() + from, from + grid.width)),
                (bin > 0).then(|| {
                    (
                        grid.points() + from - grid.width,
                        from.wrapping_sub(grid.width),
                    )
                }),
            ];
            for (index, to) in neighbours.into_iter().flatten() {
                let (low, high) = (power[from].min(power[to]), power[from].max(power[to]));
                let key = (low + 1e-6 * high, index);
                if parent[to] == usize::MAX && best.is_none_or(|(other, ..)| key > other) {
                    best = Some((key, from, to));
                }
            }
        }
        let (_, from, to) = best.unwrap();
        parent[to] = from;
        tree.push(to);
    }
    parent
}

#[test]
fn the_tree_is_that_of_prims_algorithm() {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    for (bins, frames, width) in [(1, 1, 4), (2, 1, 4), (3, 4, 4), (9, 7, 8), (17, 16, 16)] {
        let grid = Grid {
            bins,
            frames,
            width,
        };
        // Few different values, so that many edges have the same weight.
        let power: Vec<f32> = (0..grid.points())
            .map(|_| (next() % 8) as f32 / 8.0)
            .collect();
        let root = width * (bins / 2) + frames / 2;
        let expected = prim(grid, &power, root);
        let mut tree = Tree::default();
        for _ in 0..2 {
            tree.span(grid, &power);
            let mut found = vec![usize::MAX; grid.points()];
            found[root] = root;
            tree.walk(grid, root, |step| found[step.to] = step.from);
            assert_eq!(found, expected, "{bins} bins, {frames} frames");
        }
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let (_, tables) = bin_bands();
    assert!(Inverse::new(100, HOP, tables.clone()).is_err());
    assert!(Inverse::new(N_FFT, 0, tables.clone()).is_err());
    assert!(Inverse::new(N_FFT, N_FFT + 1, tables.clone()).is_err());
    assert!(Inverse::new(2 * N_FFT, HOP, tables.clone()).is_err());
    assert!(Sparse::new(vec![(3, 1.0)], vec![0, 1], 3).is_err());
    assert!(Sparse::new(vec![(2, 1.0)], vec![0, 2], 3).is_err());
    assert!(Sparse::new(vec![(2, 1.0)], vec![0, 1, 0, 1], 3).is_err());
    let inverse = Inverse::new(N_FFT, HOP, tables).unwrap();
    let row = inverse.row_shape().iter().product::<usize>();
    let mut out = vec![0.0; 200];
    assert!(inverse
        .compute(&vec![0.0; row], 1, 1, 200, &mut out, 1)
        .is_ok());
    assert!(inverse
        .compute(&vec![0.0; row], 1, 1, 128, &mut out[..128], 1)
        .is_err());
    assert!(inverse
        .compute(&vec![0.0; row], 1, 1, 199, &mut out, 1)
        .is_err());
    assert!(inverse.compute(&[], 0, 1, 200, &mut out, 1).is_err());
    assert!(inverse
        .compute(&vec![0.0; row - 1], 1, 1, 200, &mut out, 1)
        .is_err());
}
