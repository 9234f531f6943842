//! What a kernel computes: its parameters and the weights of its bands.

use fearless_simd::prelude::*;

use crate::bands::BinWeights;
use crate::elementary::{log, log1p};

/// The parameters and the bands.
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) bin_weights: BinWeights,
    /// 1 / (half support) of each band.
    pub(crate) per_support: Vec<f32>,
}

/// The parameters of the features, besides the bands.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Samples per frame; even, at least 4.
    pub n_fft: usize,
    /// Samples from one frame to the next; at least 1.
    pub hop_length: usize,
    /// Whether frames are centred at multiples of `hop_length`, and clips reflected
    /// at their ends. Otherwise all frames lie inside the clip.
    pub center: bool,
    /// What channel 0 adds up.
    pub sum: Sum,
    /// What is done to the sums of channel 0.
    pub compression: Compression,
    /// If the power of a band is at most this, channel 1 is 0. `None`: channel 1
    /// is not computed.
    pub if_masking_threshold: Option<f32>,
}

/// What is added up over the bins of a band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// |X|²
    Power,
    /// |X|
    Magnitude,
}

/// What is done to the sums of channel 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Compression {
    /// Nothing.
    None,
    /// log(1 + x)
    Log1p,
    /// `factor · log(max(x, floor))`
    Log {
        /// Least value of which the logarithm is taken; a normal number above 0.
        floor: f32,
        /// What the natural logarithm is multiplied with.
        factor: f32,
    },
}

impl Compression {
    /// Infinity and NaN are returned unchanged.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        match self {
            Compression::None => x,
            Compression::Log1p => log1p(simd, x),
            Compression::Log { floor, factor } => {
                let result = log(simd, x.max(floor)) * factor;
                x.simd_lt(f32::INFINITY).select(result, x)
            }
        }
    }
}
