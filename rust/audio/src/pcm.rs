//! Uncompressed samples, as float32.

use std::io;

use crate::source::ByteSource;

/// Bytes that are read and converted at a time: they stay in the CPU's cache.
/// Not less than what [`ByteSource`] reads without a copy.
const PIECE_BYTES: usize = 128 << 10;

/// How a sample is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    Signed8,
    Signed16,
    Signed24,
    Signed32,
    Unsigned8,
    Float32,
    Float64,
    MuLaw,
    ALaw,
}

impl Form {
    /// Bytes of a sample.
    pub const fn width(self) -> usize {
        match self {
            Self::Signed8 | Self::Unsigned8 | Self::MuLaw | Self::ALaw => 1,
            Self::Signed16 => 2,
            Self::Signed24 => 3,
            Self::Signed32 | Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

/// How samples are stored.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    pub form: Form,
    pub big_endian: bool,
    /// The value of full scale, of floats.
    pub full_scale: f32,
}

/// Reads whole samples from `offset` on, until `length` bytes or the file end.
///
/// Full scale is 1. Floats beyond it stay as they are.
///
/// # Errors
///
/// If the file cannot be read.
pub fn read_samples(
    source: &mut ByteSource,
    offset: u64,
    length: usize,
    encoding: Encoding,
) -> io::Result<Vec<f32>> {
    let width = encoding.form.width();
    let mut samples = Vec::with_capacity(length / width);
    let mut piece = vec![0; length.min(PIECE_BYTES / width * width)];
    let mut done = 0;
    while done < length {
        let want = piece.len().min(length - done);
        let count = source.read_into(offset.saturating_add(done as u64), &mut piece[..want])?;
        convert(&piece[..count], encoding, &mut samples);
        done += count;
        if count < want {
            break;
        }
    }
    Ok(samples)
}

/// Appends whole samples.
fn convert(raw: &[u8], encoding: Encoding, to: &mut Vec<f32>) {
    let Encoding {
        form, big_endian, ..
    } = encoding;
    let scale = 1.0 / encoding.full_scale;
    match (form, big_endian) {
        (Form::Signed8, _) => append(raw, to, |[byte]| f32::from(byte.cast_signed()) / 128.0),
        (Form::Unsigned8, _) => append(raw, to, |[byte]| (f32::from(byte) - 128.0) / 128.0),
        (Form::Signed16, false) => append(raw, to, |raw| from_16(i16::from_le_bytes(raw))),
        (Form::Signed16, true) => append(raw, to, |raw| from_16(i16::from_be_bytes(raw))),
        (Form::Signed24, false) => append(raw, to, |[low, mid, high]| {
            from_32(i32::from_le_bytes([0, low, mid, high]))
        }),
        (Form::Signed24, true) => append(raw, to, |[high, mid, low]| {
            from_32(i32::from_le_bytes([0, low, mid, high]))
        }),
        (Form::Signed32, false) => append(raw, to, |raw| from_32(i32::from_le_bytes(raw))),
        (Form::Signed32, true) => append(raw, to, |raw| from_32(i32::from_be_bytes(raw))),
        (Form::Float32, false) => append(raw, to, |raw| f32::from_le_bytes(raw) * scale),
        (Form::Float32, true) => append(raw, to, |raw| f32::from_be_bytes(raw) * scale),
        (Form::Float64, false) => append(raw, to, |raw| f64::from_le_bytes(raw) as f32 * scale),
        (Form::Float64, true) => append(raw, to, |raw| f64::from_be_bytes(raw) as f32 * scale),
        (Form::MuLaw, _) => append(raw, to, |[code]| MU_LAW[usize::from(code)]),
        (Form::ALaw, _) => append(raw, to, |[code]| A_LAW[usize::from(code)]),
    }
}

fn append<const WIDTH: usize>(raw: &[u8], to: &mut Vec<f32>, sample: impl Fn([u8; WIDTH]) -> f32) {
    to.extend(raw.as_chunks::<WIDTH>().0.iter().map(|&raw| sample(raw)));
}

fn from_16(sample: i16) -> f32 {
    f32::from(sample) / 32_768.0
}

fn from_32(sample: i32) -> f32 {
    sample as f32 / 2_147_483_648.0
}

static MU_LAW: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let flipped = !code & 0xff;
        let magnitude = ((((flipped & 15) << 3) + 0x84) << ((flipped >> 4) & 7)) - 0x84;
        values[code as usize] = signed(magnitude, flipped & 0x80 != 0);
        code += 1;
    }
    values
};

static A_LAW: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let flipped = code ^ 0x55;
        let (exponent, mantissa) = ((flipped >> 4) & 7, (flipped & 15) << 4);
        let magnitude = if exponent == 0 {
            mantissa + 8
        } else {
            (mantissa + 0x108) << (exponent - 1)
        };
        values[code as usize] = signed(magnitude, flipped & 0x80 == 0);
        code += 1;
    }
    values
};

const fn signed(magnitude: i32, is_negative: bool) -> f32 {
    let value = magnitude as f32 / 32_768.0;
    if is_negative {
        -value
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(raw: &[u8], form: Form, big_endian: bool) -> Vec<f32> {
        let mut samples = Vec::new();
        let encoding = Encoding {
            form,
            big_endian,
            full_scale: 1.0,
        };
        convert(raw, encoding, &mut samples);
        samples
    }

    #[test]
    fn full_scale_is_one_in_every_form() {
        assert_eq!(converted(&[0x80, 0x40], Form::Signed8, false), [-1.0, 0.5]);
        assert_eq!(
            converted(&[0, 0x80, 0xc0], Form::Unsigned8, false),
            [-1.0, 0.0, 0.5]
        );
        assert_eq!(
            converted(&[0, 0x80, 0, 0x40], Form::Signed16, false),
            [-1.0, 0.5]
        );
        assert_eq!(converted(&[0x40, 0], Form::Signed16, true), [0.5]);
        assert_eq!(converted(&[0, 0, 0x80], Form::Signed24, false), [-1.0]);
        assert_eq!(converted(&[0x40, 0, 0], Form::Signed24, true), [0.5]);
        assert_eq!(converted(&[0, 0, 0, 0x80], Form::Signed32, false), [-1.0]);
        assert_eq!(converted(&[0x3f, 0, 0, 0], Form::Float32, true), [0.5]);
        assert_eq!(
            converted(&0.25f64.to_le_bytes(), Form::Float64, false),
            [0.25]
        );
    }

    #[test]
    fn the_tables_of_g_711_are_those_of_the_standard() {
        // The largest and smallest magnitudes, in the standard's 14 and 13 bits.
        let mu = |code: u8| converted(&[code], Form::MuLaw, false)[0] * 32_768.0;
        assert_eq!(
            [mu(0x80), mu(0x00), mu(0xff), mu(0x7e)],
            [32_124.0, -32_124.0, 0.0, -8.0]
        );
        let a = |code: u8| converted(&[code], Form::ALaw, false)[0] * 32_768.0;
        assert_eq!(
            [a(0xaa), a(0x2a), a(0xd5), a(0x55)],
            [32_256.0, -32_256.0, 8.0, -8.0]
        );
    }
}
