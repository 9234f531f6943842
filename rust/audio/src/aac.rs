//! Which AAC a stream is: only AAC-LC of one or two channels is decoded here.

use symphonia::core::errors::Error;

use crate::codec::Codec;
use crate::decoder::Format;
use crate::fault::Fault;

const SAMPLE_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];
/// Packets that are searched for spectral band replication.
const PROBED: usize = 8;
/// Bytes of a packet that are searched. No frame of two channels is longer, but what fills it up may be.
const SEARCHED_BYTES: usize = 8192;
/// Places of a packet that are tried. By chance a packet has some 200 that look like it.
const MOST_TRIES: usize = 1024;
const HE_AAC: &str = "HE-AAC (spectral band replication)";

/// Returns the sample rate of an index, Hz.
pub(crate) fn sample_rate(index: u8) -> Option<u32> {
    SAMPLE_RATES.get(usize::from(index)).copied()
}

/// Returns the number of channels of a channel configuration; 0 if it is stated elsewhere.
pub(crate) fn channels(configuration: u8) -> usize {
    [0, 1, 2, 3, 4, 5, 6, 8]
        .get(usize::from(configuration))
        .copied()
        .unwrap_or(0)
}

/// Returns the name of an audio object type.
pub(crate) fn object_name(object_type: u8) -> &'static str {
    match object_type {
        1 => "AAC Main",
        2 => "AAC-LC",
        3 => "AAC-SSR",
        4 => "AAC-LTP",
        5 => HE_AAC,
        29 => "HE-AACv2 (parametric stereo)",
        23 => "AAC-LD",
        39 => "AAC-ELD",
        42 => "xHE-AAC",
        _ => "a rare kind of AAC",
    }
}

/// Returns the format in an AudioSpecificConfig.
///
/// # Errors
///
/// If it is not AAC-LC of one or two channels.
pub(crate) fn format(config: &[u8]) -> Result<Format, Fault> {
    let mut bits = Bits {
        bytes: config,
        at: 0,
    };
    let object_type = bits.object_type();
    if object_type != 2 {
        return Err(Fault::needs_ffmpeg(object_name(object_type)));
    }
    let rate = bits.rate();
    let configuration = bits.take(4) as u8;
    let has_short_frames = bits.take(1) == 1;
    let is_coded_dependently = bits.take(1) == 1;
    if is_coded_dependently {
        bits.take(14);
    }
    bits.take(1);
    if bits.take(11) == 0x2B7 && bits.object_type() == 5 && bits.take(1) == 1 {
        return Err(Fault::needs_ffmpeg(HE_AAC));
    }
    let Some(sample_rate) = rate.filter(|&rate| rate > 0) else {
        return Err(Fault::damaged("damaged: its AAC configuration is invalid"));
    };
    if has_short_frames {
        return Err(Fault::needs_ffmpeg("AAC-LC with frames of 960 samples"));
    }
    match channels(configuration) {
        0 => Err(Fault::needs_ffmpeg("AAC with its own channel layout")),
        channels @ 1..=2 => Ok(Format {
            sample_rate,
            channels,
        }),
        channels => Err(Fault::needs_ffmpeg(&format!(
            "AAC with {channels} channels"
        ))),
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// Takes up to 24 bits; behind the end they are 0.
    fn take(&mut self, count: usize) -> u32 {
        (0..count).fold(0, |value, _| {
            let byte = self.bytes.get(self.at / 8).copied().unwrap_or(0);
            let bit = byte >> (7 - self.at % 8) & 1;
            self.at += 1;
            value << 1 | u32::from(bit)
        })
    }

    fn object_type(&mut self) -> u8 {
        match self.take(5) {
            31 => 32 + self.take(6) as u8,
            short => short as u8,
        }
    }

    fn rate(&mut self) -> Option<u32> {
        match self.take(4) {
            15 => Some(self.take(24)),
            index => sample_rate(index as u8),
        }
    }
}

/// Looks for spectral band replication that no header mentions.
///
/// It hides in a fill element behind the spectra, whose length only a decoder
/// knows. So the packet is decoded up to each place that looks like such an
/// element, followed by an element that the decoder refuses by name: it does so
/// only where an element may begin.
#[derive(Default)]
pub(crate) struct Probe {
    seen: usize,
    /// Packets that seem to have it. A damaged one may.
    found: usize,
    codec: Option<Codec>,
}

impl Probe {
    /// Looks at a packet. Returns whether enough were seen.
    ///
    /// # Errors
    ///
    /// If most of them have spectral band replication.
    pub(crate) fn is_done(&mut self, format: Format, packet: &[u8]) -> Result<bool, Fault> {
        let codec = match self.codec.take() {
            Some(codec) => codec,
            None => Codec::aac(format)?,
        };
        if replicates_bands(self.codec.insert(codec), packet) {
            self.found += 1;
        }
        self.seen += 1;
        if 2 * self.found > PROBED {
            self.end()?;
        }
        Ok(self.seen >= PROBED)
    }

    /// Judges the packets that were seen.
    ///
    /// # Errors
    ///
    /// If most of them have spectral band replication.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        if 2 * self.found > self.seen {
            return Err(Fault::needs_ffmpeg(HE_AAC));
        }
        Ok(())
    }
}

fn replicates_bands(codec: &mut Codec, packet: &[u8]) -> bool {
    const FILL: u32 = 6;
    const PROGRAM_CONFIG: u8 = 5;
    let packet = &packet[..packet.len().min(SEARCHED_BYTES)];
    let mut tries = 0;
    for start in 0..(packet.len() * 8).saturating_sub(11) {
        let mut bits = Bits {
            bytes: packet,
            at: start,
        };
        if bits.take(3) != FILL {
            continue;
        }
        if bits.take(4) == 15 {
            bits.take(8);
        }
        if !matches!(bits.take(4), 0xD | 0xE) {
            continue;
        }
        tries += 1;
        if tries > MOST_TRIES {
            break;
        }
        let mut cut = packet[..=start / 8].to_vec();
        // Two bytes hold the three bits of the element wherever they begin.
        cut.push(0);
        let tail = u16::from(PROGRAM_CONFIG) << 13 >> (start % 8);
        let kept = !(0xFF_u8 >> (start % 8));
        let last = cut.len() - 1;
        cut[last - 1] = cut[last - 1] & kept | (tail >> 8) as u8;
        cut[last] = tail as u8;
        if let Err(Error::Unsupported(text)) = codec.decode(&cut) {
            if text.ends_with("program config") {
                return true;
            }
        }
    }
    false
}
