//! Both mel channels of a waveform on a CPU: log power and instantaneous
//! frequency.
//!
//! A lane of a vector is a frame: as many frames as a vector has lanes are
//! computed together, so that neither the transform nor the sums over bands
//! ever move numbers between lanes, and what comes out lies as it is kept,
//! frames of a band beside each other.
//!
//! ```text
//! samples → hops, turned → FFT → bins, two windows, power and shift, sums → both channels
//!           a sample of     in    in registers, once over the spectrum
//!           all frames      place
//! ```
//!
//! Everything between samples and channels stays in the caches of a core. The
//! instructions are chosen when the kernel is made (AVX-512, AVX2, SSE, NEON),
//! all from this source. Features of a frame are the same to the bit whatever
//! stands beside it, and whatever the number of threads.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod bands;
mod complex;
mod fft;
mod frames;
mod kernel;
mod log;
mod spectrum;
#[cfg(test)]
mod tests;

pub use bands::Band;
pub use kernel::{Kernel, Shape};

/// Why a kernel cannot be made, or cannot compute.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Numbers or lengths that do not go together; the message says which.
    #[error("{0}")]
    Invalid(String),
}
