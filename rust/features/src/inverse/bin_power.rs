//! Power and frequency of single bins from those of mel bands.
//!
//! The model, the tables and the numbers are those of
//! `distill.features.inversion.bin_power`, where they are explained.

use fearless_simd::prelude::*;

use super::sparse::Sparse;
use crate::elementary::{cos_sin, pow};
use crate::Error;

/// Updates of power that is spread over bands, of atoms, and of bins that are nearly
/// right.
const UPDATES: usize = 10;
const ATOM_UPDATES: usize = 6;
const CORRECTIONS: usize = 8;
const EXPONENT: f32 = 1.8;
/// Difference between the frequencies of neighbouring bands, relative to that of
/// their centres, up to which all of their power is one sine, and from which none is.
const AGREEING: f32 = 0.1;
const APART: f32 = 0.7;
/// Limit of channel 1, and what it is clamped to.
const WIDEST: f32 = 1.5;
const CLAMPED: f32 = 0.95 * WIDEST;
/// Smallest divisor; the loudest band of a clip has power 1.
const TINY: f32 = 1e-12;
/// Energy below this becomes 0: subnormal numbers would make sums ten times slower.
const LEAST: f32 = 1e-24;

/// The matrices of a fit of F atoms to targets.
#[derive(Clone, Debug)]
pub struct Matrices {
    /// Atoms to targets.
    pub to_targets: Sparse,
    /// The transpose of `to_targets`, each row divided by its sum.
    pub from_targets: Sparse,
    /// Bands to atoms, (F, M).
    pub spread: Sparse,
}

/// The tables of the fit, for M bands and K bins.
#[derive(Clone, Debug)]
pub struct FitTables {
    /// With bins as atoms, and bands as targets.
    pub bins: Matrices,
    /// What channel 1 needs; `None` for a feature of one channel.
    pub frequency: Option<FrequencyTables>,
}

/// The tables of the fit that channel 1 needs.
#[derive(Clone, Debug)]
pub struct FrequencyTables {
    /// With sines as atoms, and two targets for each band.
    pub atoms: Matrices,
    /// Atoms to bins, (K, F): power in each bin of an atom.
    pub lobes: Sparse,
    /// Centre of each band in bins, ascending, (M,).
    pub centre: Vec<f32>,
    /// Half the support of each band in bins, (M,).
    pub half_support: Vec<f32>,
}

impl FitTables {
    /// Number of bands.
    pub(crate) fn bands(&self) -> usize {
        self.bins.spread.shape()[1]
    }

    /// Checks that the tables fit each other and `bins` bins.
    pub(crate) fn check(&self, bins: usize) -> Result<(), Error> {
        let bands = self.bands();
        let frequency_fits = self.frequency.as_ref().is_none_or(|tables| {
            let [_, atoms] = tables.lobes.shape();
            tables.lobes.shape()[0] == bins
                && tables.atoms.fit(bands, 2 * bands, atoms)
                && [tables.centre.len(), tables.half_support.len()] == [bands; 2]
        });
        if bands > 0 && bins > 2 && self.bins.fit(bands, bands, bins) && frequency_fits {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "the tables of {bands} bands and {bins} bins do not fit each other"
        )))
    }
}

impl Matrices {
    fn fit(&self, bands: usize, targets: usize, atoms: usize) -> bool {
        self.to_targets.shape() == [targets, atoms]
            && self.from_targets.shape() == [atoms, targets]
            && self.spread.shape() == [atoms, bands]
    }
}

/// A group of frames that is fitted, one in each lane.
pub(crate) struct Fit<'a, S: Simd> {
    tables: &'a FitTables,
    /// Power of each band, from 0 to 1.
    pub(crate) power: Vec<S::f32s>,
    /// Channel 1 of each band.
    pub(crate) offset: Vec<S::f32s>,
    /// Power of each bin.
    bins: Vec<S::f32s>,
    /// Square root of the power of each bin.
    pub(crate) magnitude: Vec<S::f32s>,
    /// Frequency of each bin in bins.
    pub(crate) frequency: Vec<S::f32s>,
    energy: Vec<S::f32s>,
    targets: Vec<S::f32s>,
    ratio: Vec<S::f32s>,
    /// Frequency of each band in bins.
    position: Vec<S::f32s>,
}

impl<'a, S: Simd> Fit<'a, S> {
    pub(crate) fn new(simd: S, tables: &'a FitTables) -> Self {
        let zeros = |count| vec![S::f32s::splat(simd, 0.0); count];
        let [bins, bands] = tables.bins.spread.shape();
        let atoms = tables.frequency.as_ref();
        let atoms = atoms.map_or(0, |tables| tables.lobes.shape()[1]);
        Fit {
            tables,
            power: zeros(bands),
            offset: zeros(bands),
            bins: zeros(bins),
            magnitude: zeros(bins),
            frequency: zeros(bins),
            energy: zeros(atoms),
            targets: zeros(2 * bands),
            ratio: zeros(2 * bands),
            position: zeros(bands),
        }
    }

    /// Fits `magnitude`, and `frequency` if there is channel 1, to `power` and
    /// `offset`.
    #[inline(always)]
    pub(crate) fn run(&mut self, simd: S) {
        let bins = &self.tables.bins;
        if let Some(tables) = &self.tables.frequency {
            self.add_tones(simd, tables);
            let spread = &tables.atoms.spread;
            // Until the targets are known, the rest of each band's power is in `ratio`.
            product(simd, spread, &self.ratio, &mut self.energy);
            update(
                simd,
                &tables.atoms,
                &self.targets,
                &mut self.ratio,
                &mut self.energy,
                ATOM_UPDATES,
            );
            for (bin, power) in self.bins.iter_mut().enumerate() {
                *power += tables.lobes.times(simd, bin, &self.energy);
            }
            // No band has weight at DC and Nyquist, so nothing says what they should
            // be corrected to.
            let last = self.bins.len() - 1;
            let outermost = [self.bins[0], self.bins[last]];
            let (targets, ratio) = (&self.power, &mut self.ratio);
            update(simd, bins, targets, ratio, &mut self.bins, CORRECTIONS);
            [self.bins[0], self.bins[last]] = outermost;
        } else {
            product(simd, &bins.spread, &self.power, &mut self.bins);
            let (targets, ratio) = (&self.power, &mut self.ratio);
            update(simd, bins, targets, ratio, &mut self.bins, UPDATES);
        }
        for (magnitude, power) in self.magnitude.iter_mut().zip(&self.bins) {
            *magnitude = power.sqrt();
        }
        if self.tables.frequency.is_some() {
            self.find_frequency(simd);
        }
    }

    /// Sets the bins to a sine for each band, and `targets` and `ratio` to the rest of
    /// the band's power: the fit's targets, and their sum.
    #[inline(always)]
    fn add_tones(&mut self, simd: S, tables: &FrequencyTables) {
        let zero = S::f32s::splat(simd, 0.0);
        let (half, one) = (S::f32s::splat(simd, 0.5), S::f32s::splat(simd, 1.0));
        let last = (self.bins.len() - 1) as f32;
        self.bins.fill(zero);
        let bands = tables.centre.iter().zip(&tables.half_support);
        let positions = self.position.iter_mut().zip(&self.offset);
        for ((position, offset), (&centre, &half_support)) in positions.zip(bands) {
            *position = (*offset * half_support + centre).max(0.5).min(last - 1.0);
        }
        let mut agreement = zero;
        for band in 0..self.power.len() {
            let position = self.position[band];
            let mut share = agreement;
            if let Some(next) = self.position.get(band + 1) {
                // Bands closer than a bin share it, whatever the sound is.
                let distance = (tables.centre[band + 1] - tables.centre[band]).max(1.0);
                let apart = (*next - position).abs() / distance;
                agreement = (S::f32s::splat(simd, APART) - apart) / (APART - AGREEING);
                agreement = agreement.max(0.0).min(1.0);
                share = share.max(agreement);
            }
            let power = self.power[band];
            self.add_tone(simd, position, power * share);
            let rest = power * (one - share);
            let part = self.offset[band].max(-CLAMPED).min(CLAMPED) * (1.0 / (2.0 * WIDEST));
            self.ratio[band] = rest;
            self.targets[2 * band] = rest * (half + part);
            self.targets[2 * band + 1] = rest * (half - part);
        }
    }

    /// Adds a sine of power `strength` at `position` to the bins: the four bins of
    /// its lobe under a Hann window.
    ///
    /// With f the distance from the bin below, and g = sin(πf) / πf(1 - f), the
    /// amplitudes are g·(1-f)/((1+f)(2+f)), g/(1+f), g/(2-f) and g·f/((2-f)(3-f)).
    #[inline(always)]
    fn add_tone(&mut self, simd: S, position: S::f32s, strength: S::f32s) {
        let below = position.floor();
        let f = position - below;
        let rest = S::f32s::splat(simd, 1.0) - f;
        // g is the same for f and 1 - f. At 0 its limit is 1.
        let near = f.min(rest).max(1e-6);
        let [_, sine] = cos_sin(simd, near * 0.5);
        let g = sine / (near * (S::f32s::splat(simd, 1.0) - near) * std::f32::consts::PI);
        let (inner, outer) = (g / (f + 1.0), g / (rest + 1.0));
        let amplitudes = [
            inner * rest / (f + 2.0),
            inner,
            outer,
            outer * f / (rest + 2.0),
        ];
        // A sine of power 1 has 1.5 in all bins.
        let powers = amplitudes.map(|x| x * x * strength * (1.0 / 1.5));
        for lane in 0..S::f32s::LEN {
            if strength[lane] > 0.0 {
                let first = below[lane] as usize;
                for (step, power) in powers.iter().enumerate() {
                    let bin = (first + step).checked_sub(1);
                    if let Some(value) = bin.and_then(|bin| self.bins.get_mut(bin)) {
                        value[lane] += power[lane];
                    }
                }
            }
        }
    }

    /// Finds the frequency of the sine at each bin, from its amplitude and those of
    /// its neighbours.
    #[inline(always)]
    fn find_frequency(&mut self, simd: S) {
        let zero = S::f32s::splat(simd, 0.0);
        let (mut before, mut weighted_before) = (zero, zero);
        let last = self.magnitude.len() - 1;
        for bin in 0..=last {
            let (mut weight, mut weighted) = (zero, zero);
            let own = S::f32s::splat(simd, bin as f32);
            if bin < last {
                let (low, high) = (self.magnitude[bin], self.magnitude[bin + 1]);
                let found = own + (high + high - low) / (low + high).max(TINY);
                weight = low * high;
                weighted = weight * found;
            }
            let total = weight + before;
            let mean = (weighted + weighted_before) / total.max(TINY);
            self.frequency[bin] = total.simd_gt(TINY).select(mean, own);
            (before, weighted_before) = (weight, weighted);
        }
    }
}

/// Computes the product of a matrix with vectors.
#[inline(always)]
fn product<S: Simd>(simd: S, matrix: &Sparse, right: &[S::f32s], out: &mut [S::f32s]) {
    for (row, out) in out.iter_mut().enumerate() {
        *out = matrix.times(simd, row, right);
    }
}

/// Fits the energy of the atoms to targets by multiplicative updates.
#[inline(always)]
fn update<S: Simd>(
    simd: S,
    matrices: &Matrices,
    targets: &[S::f32s],
    ratio: &mut [S::f32s],
    energy: &mut [S::f32s],
    updates: usize,
) {
    let zero = S::f32s::splat(simd, 0.0);
    for _ in 0..updates {
        for (row, (ratio, target)) in ratio.iter_mut().zip(targets).enumerate() {
            *ratio = *target / (matrices.to_targets.times(simd, row, energy) + TINY);
        }
        for (atom, energy) in energy.iter_mut().enumerate() {
            let ratio = matrices.from_targets.times(simd, atom, ratio);
            let updated = *energy * pow(simd, ratio, EXPONENT);
            *energy = updated.simd_gt(LEAST).select(updated, zero);
        }
    }
}
