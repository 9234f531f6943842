//! Mel bands as a walk over the bins of a spectrum, each in two bands at the most.

use std::ops::Range;

use crate::Error;

/// A band of a mel filterbank: weights of neighbouring bins.
#[derive(Clone, Debug)]
pub struct Band {
    /// Bin of the first weight; 0 if there is none.
    pub first: usize,
    /// Weights; none for a band that lies between two bins.
    pub weights: Vec<f64>,
    /// Its centre, bins: what channel 1 counts from.
    pub centre: f64,
    /// Half its support, bins: the unit of channel 1.
    pub half_support: f64,
}

impl Band {
    fn bins(&self) -> Range<usize> {
        self.first..self.first + self.weights.len()
    }
}

/// Bins that lie in the same bands.
#[derive(Debug, PartialEq)]
pub(crate) struct Stretch {
    /// The bin after the last.
    pub(crate) end: usize,
    /// The bands. Where there are fewer than two, the rest is a band of its
    /// own, beyond those that there are.
    pub(crate) bands: [usize; 2],
}

/// What a bin adds to the sums of either band that it lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) weight: f32,
    /// The weight times how far the bin lies from the band's centre.
    pub(crate) moment: f32,
}

pub(crate) struct Walk {
    /// The first bin.
    pub(crate) start: usize,
    pub(crate) stretches: Vec<Stretch>,
    /// A pair for each bin, from the first.
    pub(crate) shares: Vec<[Share; 2]>,
}

impl Walk {
    /// A walk over `bands`, whose weights are multiplied by `scale`.
    pub(crate) fn new(bands: &[Band], n_fft: usize, scale: f64) -> Result<Self, Error> {
        let mut coming: Vec<usize> = (0..bands.len()).collect();
        coming.retain(|&band| !bands[band].weights.is_empty());
        coming.sort_by_key(|&band| bands[band].first);
        let start = coming.first().map_or(1, |&band| bands[band].first);
        let end = coming.iter().map(|&band| bands[band].bins().end).max();
        let end = end.unwrap_or(start);
        if start == 0 || end > n_fft / 2 {
            return Err(Error::Invalid(format!(
                "bands over bins {start} to {} must lie between DC and Nyquist, bins 0 and {}",
                end - 1,
                n_fft / 2
            )));
        }
        let mut coming = coming.into_iter().peekable();
        let mut here: Vec<usize> = Vec::new();
        let mut walk = Walk {
            start,
            stretches: Vec::new(),
            shares: Vec::with_capacity(end - start),
        };
        for bin in start..end {
            here.retain(|&band| bands[band].bins().contains(&bin));
            here.extend(std::iter::from_fn(|| {
                coming.next_if(|&band| bands[band].first == bin)
            }));
            if here.len() > 2 {
                return Err(Error::Invalid(format!(
                    "bin {bin} lies in {} bands, and may lie in two",
                    here.len()
                )));
            }
            walk.add(bin, &here, bands, scale);
        }
        Ok(walk)
    }

    fn add(&mut self, bin: usize, here: &[usize], bands: &[Band], scale: f64) {
        let mut shares = [Share::default(); 2];
        let mut names = [bands.len(); 2];
        for (slot, &name) in here.iter().enumerate() {
            let band = &bands[name];
            let weight = band.weights[bin - band.first] * scale;
            shares[slot] = Share {
                weight: weight as f32,
                // Relative to the centre: as large as the bin's index, it would cost digits.
                moment: (weight * (bin as f64 - band.centre)) as f32,
            };
            names[slot] = name;
        }
        self.shares.push(shares);
        match self.stretches.last_mut() {
            Some(last) if last.bands == names => last.end = bin + 1,
            _ => self.stretches.push(Stretch {
                end: bin + 1,
                bands: names,
            }),
        }
    }
}
