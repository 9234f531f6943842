//! The checksums of a pack's rows, and which rows were compared with them.

use std::sync::atomic::{AtomicBool, Ordering};

/// Size of a checksum in bytes.
pub const CHECKSUM_BYTES: usize = 8;

/// How the checksum of a row is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The first eight bytes of the BLAKE3, in packs of earlier versions.
    Blake3,
    /// CRC-64/NVME, little-endian: it finds accidental damage at ten times the speed.
    Crc64,
}

impl Algorithm {
    /// The checksum of the bytes of a row.
    pub fn checksum(self, row: &[u8]) -> [u8; CHECKSUM_BYTES] {
        match self {
            Self::Blake3 => {
                let mut sum = [0; CHECKSUM_BYTES];
                sum.copy_from_slice(&blake3::hash(row).as_bytes()[..CHECKSUM_BYTES]);
                sum
            }
            Self::Crc64 => crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, row).to_le_bytes(),
        }
    }
}

/// The checksums of the rows of an open pack; may be used by several threads.
pub struct Checksums {
    algorithm: Algorithm,
    sums: Vec<[u8; CHECKSUM_BYTES]>,
    matched: Vec<AtomicBool>,
}

impl Checksums {
    /// Takes the checksums of all rows, concatenated. No row counts as compared.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let sums = bytes.as_chunks().0.to_vec();
        let matched = sums.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            algorithm,
            sums,
            matched,
        }
    }

    /// Whether a row matches. It is compared once: later bytes are taken as they are.
    pub(crate) fn match_once(&self, number: usize, row: &[u8]) -> bool {
        let Some(matched) = self.matched.get(number) else {
            return false;
        };
        if !matched.load(Ordering::Relaxed) {
            if !self.matches(number, row) {
                return false;
            }
            matched.store(true, Ordering::Relaxed);
        }
        true
    }

    /// Whether a row matches now.
    pub fn matches(&self, number: usize, row: &[u8]) -> bool {
        let sum = self.sums.get(number);
        sum.is_some_and(|sum| *sum == self.algorithm.checksum(row))
    }
}
