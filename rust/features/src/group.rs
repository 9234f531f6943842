//! Groups of frames, from samples to features.

use fearless_simd::prelude::*;

use crate::frames::Run;
use crate::output::{copy_few, Part};
use crate::plan::{Plan, Shape, Sum};
use crate::spectrum::Spectra;

/// Channel 1 is clamped to ± this.
const LIMIT: f32 = 2.0;

/// The weights contain the scale of a power, 64 |X|²; a magnitude is 8 |X|.
const MAGNITUDE_SCALE: f32 = 8.0;

/// Computes as many frames at a time as a vector has lanes.
pub(crate) struct Group<S: Simd, T> {
    simd: S,
    spectra: T,
    /// Sums of power, shift and magnitude of each band, and of one after the last
    /// for bins that lie in fewer than two bands.
    sums: Vec<[S::f32s; 3]>,
    /// The features of a group of several runs: a vector for each channel and band.
    values: Vec<S::f32s>,
}

impl<S: Simd, T: Spectra<S>> Group<S, T> {
    #[inline(always)]
    pub(crate) fn new(simd: S, plan: &Plan, spectra: T) -> Self {
        let zero = S::f32s::splat(simd, 0.0);
        Group {
            simd,
            spectra,
            sums: vec![[zero; 3]; plan.per_support.len() + 1],
            values: Vec::with_capacity(2 * plan.per_support.len()),
        }
    }

    /// Computes the features of parts of clips, as many frames at a time as there are lanes.
    #[inline(always)]
    pub(crate) fn compute<'p>(&mut self, plan: &Plan, mut parts: impl Iterator<Item = Part<'p>>) {
        let mut open: Vec<Part> = Vec::new();
        let mut runs: Vec<Run> = Vec::with_capacity(S::f32s::LEN);
        loop {
            open.retain(|part| part.next < part.end);
            runs.clear();
            let mut free = S::f32s::LEN;
            while free > 0 {
                if runs.len() == open.len() {
                    match parts.next() {
                        Some(part) => open.push(part),
                        None => break,
                    }
                }
                let part = &mut open[runs.len()];
                let count = free.min(part.end - part.next);
                runs.push(Run {
                    clip: part.clip,
                    first: part.next,
                    count,
                });
                part.next += count;
                free -= count;
            }
            let Some(last) = runs.last_mut() else {
                return;
            };
            // Frames that are computed, but not stored.
            last.count += free;
            self.compute_group(plan, &runs);
            if let Some(last) = runs.last_mut() {
                last.count -= free;
            }
            self.store(plan, &runs, &mut open);
        }
    }

    #[inline(always)]
    fn compute_group(&mut self, plan: &Plan, runs: &[Run]) {
        self.spectra.transform(self.simd, runs);
        let Shape {
            sum,
            if_masking_threshold,
            ..
        } = plan.shape;
        match (if_masking_threshold.is_some(), sum) {
            (true, Sum::Power) => self.sum::<true, false>(plan),
            (false, Sum::Power) => self.sum::<false, false>(plan),
            (true, Sum::Magnitude) => self.sum::<true, true>(plan),
            (false, Sum::Magnitude) => self.sum::<false, true>(plan),
        }
    }

    /// Adds the power of each bin, its shift if there is channel 1, and its magnitude
    /// if channel 0 needs it, to the sums of its bands.
    #[inline(always)]
    fn sum<const WITH_FREQUENCY: bool, const WITH_MAGNITUDE: bool>(&mut self, plan: &Plan) {
        let Group {
            simd,
            spectra,
            sums,
            ..
        } = self;
        let simd = *simd;
        let weights_of_bins = &plan.bin_weights;
        sums.fill([S::f32s::splat(simd, 0.0); 3]);
        let mut bin = weights_of_bins.start;
        let mut below = spectra.bin(simd, bin - 1);
        let mut here = spectra.bin(simd, bin);
        let mut weights = weights_of_bins.weights.iter();
        for section in &weights_of_bins.sections {
            let mut first_sums = sums[section.bands[0]];
            let mut second_sums = sums[section.bands[1]];
            for &[first, second] in weights.by_ref().take(section.end - bin) {
                let above = spectra.bin(simd, bin + 1);
                let stft = here.plus(here).minus(below.plus(above));
                let power = stft.re.mul_add(stft.re, stft.im * stft.im);
                let slope = below.minus(above);
                let shift = slope.re.mul_add(stft.re, slope.im * stft.im);
                for (sums, factors) in [(&mut first_sums, first), (&mut second_sums, second)] {
                    let weight = S::f32s::splat(simd, factors.weight);
                    sums[0] = power.mul_add(weight, sums[0]);
                    if WITH_MAGNITUDE {
                        sums[2] = power.sqrt().mul_add(weight, sums[2]);
                    }
                    if WITH_FREQUENCY {
                        let moment = S::f32s::splat(simd, factors.moment);
                        sums[1] = power.mul_add(moment, shift.mul_add(weight, sums[1]));
                    }
                }
                (below, here) = (here, above);
                bin += 1;
            }
            sums[section.bands[0]] = first_sums;
            sums[section.bands[1]] = second_sums;
        }
    }

    /// Computes the features of a group from its sums, and stores them in the parts of its runs.
    #[inline(always)]
    fn store(&mut self, plan: &Plan, runs: &[Run], parts: &mut [Part]) {
        let bands = plan.per_support.len();
        let threshold = plan.shape.if_masking_threshold;
        if let (&[Run { first, count, .. }], [part]) = (runs, &mut *parts) {
            if count == S::f32s::LEN {
                // At once: the memory is written while the next values are computed.
                if let Some(threshold) = threshold {
                    part.store(
                        bands..2 * bands,
                        first,
                        count,
                        #[inline(always)]
                        |row, out| {
                            let values = self.frequency(plan, row - bands, threshold);
                            values.store_slice(out);
                        },
                    );
                }
                part.store(
                    0..bands,
                    first,
                    count,
                    #[inline(always)]
                    |row, out| {
                        self.magnitude(plan, row).store_slice(out);
                    },
                );
                return;
            }
        }
        let mut values = std::mem::take(&mut self.values);
        values.clear();
        for band in 0..bands {
            values.push(self.magnitude(plan, band));
        }
        if let Some(threshold) = threshold {
            for band in 0..bands {
                values.push(self.frequency(plan, band, threshold));
            }
        }
        let mut lane = 0;
        for (run, part) in runs.iter().zip(parts) {
            part.store(
                0..values.len(),
                run.first,
                run.count,
                #[inline(always)]
                |row, out| {
                    copy_few(&values[row].as_slice()[lane..][..run.count], out);
                },
            );
            lane += run.count;
        }
        self.values = values;
    }

    #[inline(always)]
    fn magnitude(&self, plan: &Plan, band: usize) -> S::f32s {
        let Shape {
            sum, compression, ..
        } = plan.shape;
        let [power, _, magnitude] = self.sums[band];
        let value = match sum {
            Sum::Power => power,
            Sum::Magnitude => magnitude * MAGNITUDE_SCALE,
        };
        compression.apply(self.simd, value)
    }

    /// 0 where the power is at most `threshold`. NaN stays NaN.
    #[inline(always)]
    fn frequency(&self, plan: &Plan, band: usize, threshold: f32) -> S::f32s {
        let limit = S::f32s::splat(self.simd, LIMIT);
        let zero = S::f32s::splat(self.simd, 0.0);
        let [power, shift, _] = self.sums[band];
        let value = shift / power * plan.per_support[band];
        let value = value.simd_gt(limit).select(limit, value);
        let value = value.simd_lt(-limit).select(-limit, value);
        power.simd_le(threshold).select(zero, value)
    }
}
