//! Groups of frames, from samples to features.

use fearless_simd::prelude::*;

use crate::frames::Run;
use crate::kernel::{Kernel, Shape, Sum};
use crate::output::Part;
use crate::spectrum::Spectra;

/// Channel 1 is clamped to ± this.
const LIMIT: f32 = 2.0;

/// The weights contain the scale of 64 |X|², a power; a magnitude is 8 |X|.
const MAGNITUDE_SCALE: f32 = 8.0;

/// Computes as many frames at a time as a vector has lanes.
pub(crate) struct Group<'a, S: Simd, T> {
    simd: S,
    kernel: &'a Kernel,
    spectra: T,
    /// Sums of power, shift and magnitude of each band, and of one after the last
    /// for bins that lie in fewer than two bands.
    sums: Vec<[S::f32s; 3]>,
}

impl<'a, S: Simd, T: Spectra<S>> Group<'a, S, T> {
    #[inline(always)]
    pub(crate) fn new(simd: S, kernel: &'a Kernel, spectra: T) -> Self {
        let sums = vec![[S::f32s::splat(simd, 0.0); 3]; kernel.per_support.len() + 1];
        Group {
            simd,
            kernel,
            spectra,
            sums,
        }
    }

    /// Computes the features of parts of clips, as many frames at a time as there are lanes.
    #[inline(always)]
    pub(crate) fn compute<'p>(&mut self, mut parts: impl Iterator<Item = Part<'p>>) {
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
            self.compute_group(&runs);
            if let Some(last) = runs.last_mut() {
                last.count -= free;
            }
            self.store(&runs, &mut open);
        }
    }

    #[inline(always)]
    fn compute_group(&mut self, runs: &[Run]) {
        self.spectra.transform(self.simd, runs);
        let Shape {
            sum,
            if_masking_threshold,
            ..
        } = self.kernel.shape;
        match (if_masking_threshold.is_some(), sum) {
            (true, Sum::Power) => self.sum::<true, false>(),
            (false, Sum::Power) => self.sum::<false, false>(),
            (true, Sum::Magnitude) => self.sum::<true, true>(),
            (false, Sum::Magnitude) => self.sum::<false, true>(),
        }
    }

    /// Adds the power of each bin, its shift if there is channel 1, and its magnitude
    /// if channel 0 needs it, to the sums of its bands.
    #[inline(always)]
    fn sum<const WITH_FREQUENCY: bool, const WITH_MAGNITUDE: bool>(&mut self) {
        let Group {
            simd,
            kernel,
            spectra,
            sums,
        } = self;
        let simd = *simd;
        let plan = &kernel.bin_weights;
        sums.fill([S::f32s::splat(simd, 0.0); 3]);
        let mut bin = plan.start;
        let mut below = spectra.bin(simd, bin - 1);
        let mut here = spectra.bin(simd, bin);
        let mut weights = plan.weights.iter();
        for section in &plan.sections {
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

    /// Stores the features of the frames of `runs`, each in its part.
    #[inline(always)]
    fn store(&self, runs: &[Run], parts: &mut [Part]) {
        let bands = self.kernel.per_support.len();
        if let Some(threshold) = self.kernel.shape.if_masking_threshold {
            for band in 0..bands {
                store::<S>(self.frequency(band, threshold), bands + band, runs, parts);
            }
        }
        for band in 0..bands {
            store::<S>(self.magnitude(band), band, runs, parts);
        }
    }

    #[inline(always)]
    fn magnitude(&self, band: usize) -> S::f32s {
        let Shape {
            sum, compression, ..
        } = self.kernel.shape;
        let [power, _, magnitude] = self.sums[band];
        let value = match sum {
            Sum::Power => power,
            Sum::Magnitude => magnitude * MAGNITUDE_SCALE,
        };
        compression.apply(self.simd, value)
    }

    /// 0 where the power is at most `threshold`. NaN stays NaN.
    #[inline(always)]
    fn frequency(&self, band: usize, threshold: f32) -> S::f32s {
        let limit = S::f32s::splat(self.simd, LIMIT);
        let zero = S::f32s::splat(self.simd, 0.0);
        let [power, shift, _] = self.sums[band];
        let value = shift / power * self.kernel.per_support[band];
        let value = value.simd_gt(limit).select(limit, value);
        let value = value.simd_lt(-limit).select(-limit, value);
        power.simd_le(threshold).select(zero, value)
    }
}

/// Stores the values of a row, the lanes of each run in its part.
#[inline(always)]
fn store<S: Simd>(values: S::f32s, row: usize, runs: &[Run], parts: &mut [Part]) {
    let mut lane = 0;
    for (run, part) in runs.iter().zip(parts) {
        let out = &mut part.row(row, run.first)[..run.count];
        if run.count == S::f32s::LEN {
            values.store_slice(out);
        } else {
            copy_few(&values.as_slice()[lane..][..run.count], out);
        }
        lane += run.count;
    }
}

/// Copies fewer than 16 values. A call of memcpy would take longer.
#[inline(always)]
fn copy_few(mut from: &[f32], mut to: &mut [f32]) {
    for count in [8, 4, 2, 1] {
        if let Some((head, rest)) = from.split_at_checked(count) {
            let (start, others) = to.split_at_mut(count);
            start.copy_from_slice(head);
            (from, to) = (rest, others);
        }
    }
}
