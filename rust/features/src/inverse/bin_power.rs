//! Power and frequency of single bins from those of mel bands.
//!
//! The model, the tables and the numbers are those of
//! `distill.features.inversion.bin_power`, where they are explained.

use fearless_simd::prelude::*;

use super::sparse::Sparse;
use crate::elementary::pow;
use crate::Error;

const UPDATES: usize = 10;
const EXPONENT: f32 = 1.8;
/// Share of a band's power that starts at the frequency of channel 1.
const AT_FREQUENCY: f32 = 0.5;
const WIDEST: f32 = 1.5;
const CLAMPED: f32 = 0.95 * WIDEST;
/// Smallest divisor; the loudest band of a clip has power 1.
const TINY: f32 = 1e-12;

/// Energy below this becomes 0: subnormal numbers would make sums ten times slower.
const LEAST: f32 = 1e-24;

/// The constant matrices of the fit, for F atoms, M bands and K bins.
#[derive(Clone, Debug)]
pub struct FitTables {
    /// Atoms to targets, (M, F), or (2M, F) with frequency.
    pub to_targets: Sparse,
    /// The transpose of `to_targets`, each row divided by its sum.
    pub from_targets: Sparse,
    /// Bands to atoms, (F, M).
    pub spread: Sparse,
    /// What channel 1 needs; `None` for a feature of one channel, whose atoms are bins.
    pub frequency: Option<FrequencyTables>,
}

/// The tables of the fit that channel 1 needs.
#[derive(Clone, Debug)]
pub struct FrequencyTables {
    /// Frequency of each atom in bins, ascending, (F,).
    pub atoms: Vec<f32>,
    /// Atoms to bins, (K, F): where an atom is near a bin.
    pub near: Sparse,
    /// Atoms to bins, (K, F): power in each bin of an atom.
    pub lobes: Sparse,
    /// Centre of each band in bins, (M,).
    pub centre: Vec<f32>,
    /// Half the support of each band in bins, (M,).
    pub half_support: Vec<f32>,
}

impl FitTables {
    /// Number of bands.
    pub(crate) fn bands(&self) -> usize {
        self.spread.shape()[1]
    }

    /// Checks that the tables fit each other and `bins` bins.
    pub(crate) fn check(&self, bins: usize) -> Result<(), Error> {
        let [atoms, bands] = self.spread.shape();
        let channels = 1 + usize::from(self.frequency.is_some());
        let lengths = self.frequency.as_ref().map(|more| {
            let lengths = [more.centre.len(), more.half_support.len()];
            more.near.shape() == [bins, atoms]
                && more.lobes.shape() == [bins, atoms]
                && more.atoms.len() == atoms
                && lengths == [bands; 2]
        });
        let fits = self.to_targets.shape() == [channels * bands, atoms]
            && self.from_targets.shape() == [atoms, channels * bands]
            && lengths.unwrap_or(atoms == bins)
            && bands > 0
            && atoms > 1;
        if fits {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "the tables do not fit each other: {bands} bands, {bins} bins, {atoms} atoms"
        )))
    }
}

/// A group of frames that is fitted, one in each lane.
pub(crate) struct Fit<'a, S: Simd> {
    tables: &'a FitTables,
    /// Power of each band, from 0 to 1.
    pub(crate) power: Vec<S::f32s>,
    /// Channel 1 of each band.
    pub(crate) offset: Vec<S::f32s>,
    targets: Vec<S::f32s>,
    ratio: Vec<S::f32s>,
    energy: Vec<S::f32s>,
    /// Energy times frequency of each atom.
    moment: Vec<S::f32s>,
}

impl<'a, S: Simd> Fit<'a, S> {
    pub(crate) fn new(simd: S, tables: &'a FitTables) -> Self {
        let bands = tables.bands();
        let zeros = |count| vec![S::f32s::splat(simd, 0.0); count];
        Fit {
            tables,
            power: zeros(bands),
            offset: zeros(bands),
            targets: zeros(tables.to_targets.shape()[0]),
            ratio: zeros(tables.to_targets.shape()[0]),
            energy: zeros(tables.spread.shape()[0]),
            moment: zeros(tables.spread.shape()[0]),
        }
    }

    /// Fits the energy of the atoms to `power` and `offset`.
    #[inline(always)]
    pub(crate) fn run(&mut self, simd: S) {
        for (atom, energy) in self.energy.iter_mut().enumerate() {
            *energy = self.tables.spread.times(simd, atom, &self.power);
        }
        match &self.tables.frequency {
            None => self.targets.copy_from_slice(&self.power),
            Some(tables) => {
                self.split_targets(simd);
                for energy in &mut self.energy {
                    *energy *= 1.0 - AT_FREQUENCY;
                }
                self.place(tables);
            }
        }
        for _ in 0..UPDATES {
            self.update(simd);
        }
        if let Some(tables) = &self.tables.frequency {
            let energies = self.moment.iter_mut().zip(&self.energy);
            for ((moment, energy), &atom) in energies.zip(&tables.atoms) {
                *moment = *energy * atom;
            }
        }
    }

    /// Two targets for each band: its power, divided as channel 1 says.
    #[inline(always)]
    fn split_targets(&mut self, simd: S) {
        let half = S::f32s::splat(simd, 0.5);
        let bands = self.power.iter().zip(&self.offset);
        for (targets, (&power, &offset)) in self.targets.chunks_exact_mut(2).zip(bands) {
            let share = offset.max(-CLAMPED).min(CLAMPED) * (1.0 / (2.0 * WIDEST));
            targets[0] = power * (half + share);
            targets[1] = power * (half - share);
        }
    }

    /// Divides a part of each band's power between the two atoms next to its
    /// frequency.
    #[inline(always)]
    fn place(&mut self, tables: &FrequencyTables) {
        let atoms = &tables.atoms[..];
        let (first, last) = (atoms[0], atoms[atoms.len() - 1]);
        for (band, power) in self.power.iter().enumerate() {
            for lane in 0..S::f32s::LEN {
                let power = power[lane];
                if power == 0.0 {
                    continue;
                }
                let offset = tables.half_support[band] * self.offset[band][lane];
                let position = (tables.centre[band] + offset).clamp(first, last);
                let above = atoms.partition_point(|&atom| atom < position);
                let above = above.clamp(1, atoms.len() - 1);
                let (low, high) = (atoms[above - 1], atoms[above]);
                let part = (position - low) / (high - low);
                // Each band adds half its power: a sine lies in two bands.
                let placed = 0.5 * AT_FREQUENCY * power;
                self.energy[above - 1][lane] += placed * (1.0 - part);
                self.energy[above][lane] += placed * part;
            }
        }
    }

    /// A multiplicative update.
    #[inline(always)]
    fn update(&mut self, simd: S) {
        let tables = self.tables;
        let ratios = self.ratio.iter_mut().zip(&self.targets);
        for (row, (ratio, target)) in ratios.enumerate() {
            *ratio = *target / (tables.to_targets.times(simd, row, &self.energy) + TINY);
        }
        let zero = S::f32s::splat(simd, 0.0);
        for (atom, energy) in self.energy.iter_mut().enumerate() {
            let ratio = tables.from_targets.times(simd, atom, &self.ratio);
            let updated = *energy * pow(simd, ratio, EXPONENT);
            *energy = updated.simd_gt(LEAST).select(updated, zero);
        }
    }

    /// Power of a bin, and its frequency in bins if the feature has channel 1.
    #[inline(always)]
    pub(crate) fn bin(&self, simd: S, bin: usize) -> (S::f32s, Option<S::f32s>) {
        let Some(tables) = &self.tables.frequency else {
            return (self.energy[bin], None);
        };
        let near = tables.near.times(simd, bin, &self.energy);
        let mean = tables.near.times(simd, bin, &self.moment) / near.max(TINY);
        let own = S::f32s::splat(simd, bin as f32);
        let power = tables.lobes.times(simd, bin, &self.energy);
        (power, Some(near.simd_gt(TINY).select(mean, own)))
    }
}
