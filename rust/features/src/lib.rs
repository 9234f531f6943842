//! Mel features of waveforms on the CPU: log power (channel 0) and instantaneous
//! frequency (channel 1) of each band.
//!
//! Each lane of a vector holds another frame. As many frames as a vector has
//! lanes are computed together, so neither the FFT nor the sums over the bins of
//! a band move numbers between lanes, and the frames of a band are written next
//! to each other, as in the output.
//!
//! ```text
//! samples → hops, transposed → FFT → bins → window, power, shift, sums → both channels
//!           one sample of      in place      in registers, in one pass
//!           all frames                       over the spectrum
//! ```
//!
//! All intermediate results stay in the caches of a core. The instruction set
//! (AVX-512, AVX2, SSE, NEON) is selected when the kernel is created; there is
//! one source for all. The features of a frame are the same to the bit, whatever
//! the other frames and whatever the number of threads.
//!
//! # Example
//!
//! A sine at 8.25 bins, and a band that is centred at bin 8:
//!
//! ```
//! use std::f64::consts::TAU;
//!
//! use distill_features::{Band, Compression, Kernel, Shape, Sum};
//!
//! # fn main() -> Result<(), distill_features::Error> {
//! let shape = Shape {
//!     n_fft: 64,
//!     hop_length: 16,
//!     center: true,
//!     sum: Sum::Power,
//!     compression: Compression::Log1p,
//!     if_masking_threshold: Some(1e-5),
//! };
//! let band = Band {
//!     first: 7,
//!     weights: vec![0.5, 1.0, 0.5],
//!     centre: 8.0,
//!     half_support: 2.0,
//! };
//! let kernel = Kernel::new(shape, &[band])?;
//!
//! let sine = |t: usize| (TAU * 8.25 / 64.0 * t as f64).sin() as f32;
//! let clip: Vec<f32> = (0..512).map(sine).collect();
//! let [channels, bands, frames] = kernel.row_shape(clip.len());
//! assert_eq!([channels, bands, frames], [2, 1, 33]);
//!
//! let mut features = vec![0.0; channels * bands * frames];
//! kernel.compute(&clip, clip.len(), &mut features, 1)?;
//! let (log_power, frequency) = features.split_at(frames);
//! assert!(log_power[16] > 4.0);
//! // Channel 1 is relative to the centre, in units of half the support.
//! assert!((frequency[16] - (8.25 - 8.0) / 2.0).abs() < 1e-3);
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod bands;
mod complex;
mod elementary;
mod error;
mod fft;
mod frames;
mod group;
mod inverse;
mod kernel;
mod output;
mod plan;
mod spectrum;
#[cfg(test)]
mod tests;
mod threads;

pub use bands::Band;
pub use error::Error;
pub use inverse::{FitTables, FrequencyTables, Inverse, Matrices, Sparse};
pub use kernel::Kernel;
pub use plan::{Compression, Shape, Sum};
