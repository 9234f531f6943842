//! The header and the checksums of a FLAC frame.

use crate::decoder::Format;
use crate::flac_part::StreamInfo;

/// The header of a frame.
#[derive(Clone, Copy)]
pub(crate) struct FrameHeader {
    /// Length of the header, bytes.
    pub(crate) length: usize,
    /// Frames of sound.
    pub(crate) block: u32,
    /// Number of the frame or, if the block size varies, of its first sample.
    pub(crate) number: u64,
    is_variable: bool,
    sample_rate: Option<u32>,
    bits: Option<u32>,
    channels: usize,
}

impl FrameHeader {
    /// Bytes that a header may have.
    pub(crate) const LONGEST: usize = 16;

    /// Returns the header that `bytes` begins with, if its checksum is right.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[0xFF, second, sizes, layout, ..] = bytes else {
            return None;
        };
        if second & 0xFE != 0xF8 || layout & 1 != 0 || layout >> 4 > 10 {
            return None;
        }
        let (number, mut at) = coded_number(bytes, 4)?;
        let mut extra = |length: usize| -> Option<u32> {
            let field = bytes.get(at..at + length)?;
            at += length;
            Some(
                field
                    .iter()
                    .fold(0, |sum, &byte| sum << 8 | u32::from(byte)),
            )
        };
        let block = match sizes >> 4 {
            0 => return None,
            1 => 192,
            code @ 2..=5 => 576 << (code - 2),
            6 => extra(1)? + 1,
            7 => extra(2)? + 1,
            code => 256 << (code - 8),
        };
        let sample_rate = match sizes & 15 {
            0 => None,
            12 => Some(extra(1)? * 1000),
            13 => Some(extra(2)?),
            14 => Some(extra(2)? * 10),
            15 => return None,
            code => Some(RATES[usize::from(code) - 1]),
        };
        let bits = match layout >> 1 & 7 {
            0 => None,
            3 => return None,
            code => Some([8, 12, 0, 16, 20, 24, 32][usize::from(code) - 1]),
        };
        let channels = match layout >> 4 {
            count @ 0..=7 => usize::from(count) + 1,
            _ => 2,
        };
        let is_right = crc8(bytes.get(..at)?) == *bytes.get(at)?;
        is_right.then_some(Self {
            length: at + 1,
            block,
            number,
            is_variable: second & 1 == 1,
            sample_rate,
            bits,
            channels,
        })
    }

    /// Whether it may belong to this stream.
    pub(crate) fn fits(&self, info: &StreamInfo) -> bool {
        let Format {
            sample_rate,
            channels,
        } = info.format;
        self.channels == channels
            && self.sample_rate.is_none_or(|rate| rate == sample_rate)
            && self.bits.is_none_or(|bits| bits == info.bits)
    }

    /// Whether `next` may follow in the same stream.
    pub(crate) fn is_before(&self, next: &Self) -> bool {
        self.is_variable == next.is_variable && self.number < next.number
    }

    /// Number of the frame that follows.
    pub(crate) fn next_number(&self) -> u64 {
        self.number
            + if self.is_variable {
                u64::from(self.block)
            } else {
                1
            }
    }

    /// Bytes that the frame may have: uncompressed samples, and what surrounds them.
    pub(crate) fn longest(&self, info: &StreamInfo) -> usize {
        let bits = self.block as usize * self.channels * (info.bits as usize + 1);
        // An encoder may do worse than to leave the samples as they are, but none is known to.
        Self::LONGEST + bits / 8 + 64 * self.channels + 2
    }
}

const RATES: [u32; 11] = [
    88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000,
];

/// Reads a number that is coded like a character in UTF-8, and returns where it ends.
fn coded_number(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let following = match first.leading_ones() {
        0 => return Some((u64::from(first), at + 1)),
        ones @ 2..=7 => ones as usize - 1,
        _ => return None,
    };
    let mut value = u64::from(first) & (0x7F >> (following + 1).min(7));
    for &byte in bytes.get(at + 1..at + 1 + following)? {
        if byte & 0xC0 != 0x80 {
            return None;
        }
        value = value << 6 | u64::from(byte & 0x3F);
    }
    Some((value, at + 1 + following))
}

fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| {
        (0..8).fold(sum ^ byte, |sum, _| {
            sum << 1 ^ if sum & 0x80 != 0 { 7 } else { 0 }
        })
    })
}

/// Tables for eight bytes at once; the first one is for one byte.
static CRC16: [[u16; 256]; 8] = crc16_tables();

const fn crc16_tables() -> [[u16; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            sum = sum << 1 ^ if sum & 0x8000 != 0 { 0x8005 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before << 8 ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// Continues the checksum `sum` of a frame. With its own checksum a frame gives 0.
pub(crate) fn crc16(mut sum: u16, bytes: &[u8]) -> u16 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let high = eight[0] ^ (sum >> 8) as u8;
        let low = eight[1] ^ sum as u8;
        sum = CRC16[7][high as usize] ^ CRC16[6][low as usize];
        for (index, &byte) in eight[2..].iter().enumerate() {
            sum ^= CRC16[5 - index][byte as usize];
        }
    }
    for byte in rest {
        sum = sum << 8 ^ CRC16[0][((sum >> 8) as u8 ^ byte) as usize];
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{coded_number, crc16};

    #[test]
    fn the_checksum_of_eight_bytes_at_once_is_that_of_single_ones() {
        let bytes: Vec<u8> = (0..1000_u32)
            .map(|index| (index * index / 7) as u8)
            .collect();
        for length in [0, 1, 7, 8, 9, 63, 1000] {
            let single = bytes[..length]
                .iter()
                .fold(0, |sum, byte| crc16(sum, std::slice::from_ref(byte)));
            assert_eq!(crc16(0, &bytes[..length]), single);
        }
        // The check value that catalogues of checksums give for CRC-16/UMTS.
        assert_eq!(crc16(0, b"123456789"), 0xFEE8);
    }

    #[test]
    fn numbers_are_coded_like_characters() {
        for character in ['a', 'é', '€', '𝄞'] {
            let mut bytes = [0; 4];
            let length = character.encode_utf8(&mut bytes).len();
            let expected = Some((u64::from(character as u32), length));
            assert_eq!(coded_number(&bytes, 0), expected);
        }
        // The largest one, of 36 bits.
        let bytes = [0xFE, 0xBF, 0xBF, 0xBF, 0xBF, 0xBF, 0xBF];
        assert_eq!(coded_number(&bytes, 0), Some(((1 << 36) - 1, 7)));
        assert_eq!(coded_number(&[0xC3, 0x28], 0), None);
        assert_eq!(coded_number(&[0xC3], 0), None);
    }
}
