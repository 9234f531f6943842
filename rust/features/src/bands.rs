//! Mel bands, arranged by bin: a spectrum is read once, and each bin is added to
//! the one or two bands that it lies in.

use std::ops::Range;

use crate::Error;

/// A band of a mel filterbank: the weights of consecutive bins.
#[derive(Clone, Debug)]
pub struct Band {
    /// Bin of the first weight; 0 if there are no weights.
    pub first: usize,
    /// Weights; empty for a band that lies between two bins.
    pub weights: Vec<f64>,
    /// Centre in bins. Channel 1 is relative to it.
    pub centre: f64,
    /// Half the width of the support in bins, the unit of channel 1.
    pub half_support: f64,
}

impl Band {
    fn bins(&self) -> Range<usize> {
        self.first..self.first + self.weights.len()
    }
}

/// Consecutive bins that lie in the same bands.
#[derive(Debug, PartialEq)]
pub(crate) struct Section {
    /// The bin after the last.
    pub(crate) end: usize,
    /// Indices of the two bands. If there are fewer, the index after the last
    /// band: its sums are ignored.
    pub(crate) bands: [usize; 2],
}

/// Factors with which a bin is added to the sums of a band.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct BinWeight {
    pub(crate) weight: f32,
    /// The weight times the distance of the bin from the band's centre.
    pub(crate) moment: f32,
}

/// The weights of all bands by bin.
pub(crate) struct BinWeights {
    /// The first bin.
    pub(crate) start: usize,
    pub(crate) sections: Vec<Section>,
    /// For each bin from `start` on, its weights in the two bands of its section.
    pub(crate) weights: Vec<[BinWeight; 2]>,
}

impl BinWeights {
    /// Arranges the weights of `bands`, multiplied by `scale`.
    pub(crate) fn new(bands: &[Band], n_fft: usize, scale: f64) -> Result<Self, Error> {
        let mut upcoming: Vec<usize> = (0..bands.len()).collect();
        upcoming.retain(|&band| !bands[band].weights.is_empty());
        upcoming.sort_by_key(|&band| bands[band].first);
        let start = upcoming.first().map_or(1, |&band| bands[band].first);
        let end = upcoming.iter().map(|&band| bands[band].bins().end).max();
        let end = end.unwrap_or(start);
        if start == 0 || end > n_fft / 2 {
            return Err(Error::Invalid(format!(
                "bands over bins {start} to {} must lie between DC and Nyquist, bins 0 and {}",
                end - 1,
                n_fft / 2
            )));
        }
        let mut upcoming = upcoming.into_iter().peekable();
        let mut current: Vec<usize> = Vec::new();
        let mut plan = BinWeights {
            start,
            sections: Vec::new(),
            weights: Vec::with_capacity(end - start),
        };
        for bin in start..end {
            current.retain(|&band| bands[band].bins().contains(&bin));
            current.extend(std::iter::from_fn(|| {
                upcoming.next_if(|&band| bands[band].first == bin)
            }));
            if current.len() > 2 {
                return Err(Error::Invalid(format!(
                    "bin {bin} lies in {} bands; at most 2 are supported",
                    current.len()
                )));
            }
            plan.push(bin, &current, bands, scale);
        }
        Ok(plan)
    }

    /// Adds a bin that lies in the bands of `current`.
    fn push(&mut self, bin: usize, current: &[usize], bands: &[Band], scale: f64) {
        let mut weights = [BinWeight::default(); 2];
        let mut indices = [bands.len(); 2];
        for (slot, &index) in current.iter().enumerate() {
            let band = &bands[index];
            let weight = band.weights[bin - band.first] * scale;
            weights[slot] = BinWeight {
                weight: weight as f32,
                // Relative to the centre, because the bin's index is so much
                // larger that float32 would lose digits.
                moment: (weight * (bin as f64 - band.centre)) as f32,
            };
            indices[slot] = index;
        }
        self.weights.push(weights);
        match self.sections.last_mut() {
            Some(last) if last.bands == indices => last.end = bin + 1,
            _ => self.sections.push(Section {
                end: bin + 1,
                bands: indices,
            }),
        }
    }
}
