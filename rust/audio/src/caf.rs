//! Core Audio Format with AAC or ALAC. What is not coded in packets is for other readers.

use crate::aac;
use crate::decoder::Format;
use crate::fault::Fault;
use crate::mp4_config::{aac_config, child};
use crate::packets::{Coding, Packets, Place, Places, Trim};
use crate::window::Window;

/// Chunks with settings are no longer; a table of packets may be.
const LONGEST_CHUNK: u64 = 64 << 20;
const TABLE_IS_DAMAGED: &str = "damaged: its table of packets is damaged";

#[derive(Default)]
struct Chunks {
    description: Vec<u8>,
    cookie: Vec<u8>,
    table: Vec<u8>,
    data: Option<u64>,
}

pub(crate) fn open(mut window: Window) -> Result<Packets, Fault> {
    if !window.starts_with(0, b"caff")? {
        return Err(Fault::NotForMe);
    }
    let chunks = read_chunks(&mut window)?;
    let description = chunks.description.as_slice();
    let coding = match description.get(8..12) {
        Some(b"alac") => Coding::Alac(alac_cookie(&chunks.cookie).to_vec()),
        Some(b"aac ") => Coding::Aac(aac_format(&chunks.cookie)?),
        Some(b"lpcm" | b"ulaw" | b"alaw") => return Err(Fault::NotForMe),
        Some(other)
            if other.starts_with(b"ms") || other.iter().all(|code| matches!(code, b' '..=b'~')) =>
        {
            return Err(Fault::needs_ffmpeg(&codec_name(other)))
        }
        _ => return Err(Fault::NotForMe),
    };
    let Some(data) = chunks.data else {
        return Err(Fault::cut_short("cut short: it holds no sound"));
    };
    let number = |at: usize| -> i64 {
        let bytes = chunks.table.get(at..at + 8);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, i64::from_be_bytes)
    };
    if chunks.table.len() < 24 {
        let text = "cut short: it has no table of packets, as a recording that was not finished";
        return Err(Fault::cut_short(text));
    }
    let Ok(count) = u64::try_from(number(0)) else {
        return Err(Fault::damaged(TABLE_IS_DAMAGED));
    };
    let priming = (number(16) >> 32).clamp(0, 1 << 20) as u64;
    // The last packet of ALAC says itself how long it is. Some programs count it as a whole one.
    let stated = u64::try_from(number(8)).ok().filter(|&frames| frames > 0);
    let trim = Trim {
        skip: priming,
        frames: stated.filter(|_| matches!(coding, Coding::Aac(_))),
        is_cut: true,
    };
    let field = |at: usize| -> u32 {
        let bytes = description.get(at..at + 4);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_be_bytes)
    };
    let places = Table {
        at: 24,
        left: count,
        offset: data,
        packet_bytes: field(16),
        has_frames: field(20) == 0,
        table: chunks.table,
    };
    Packets::open(window, Box::new(places), coding, trim)
}

fn read_chunks(window: &mut Window) -> Result<Chunks, Fault> {
    let mut chunks = Chunks::default();
    let mut offset = 8;
    while let Some(head) = window.array::<12>(offset)? {
        let kind = [head[0], head[1], head[2], head[3]];
        let length = head[4..]
            .iter()
            .fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        offset += 12;
        if &kind == b"data" {
            // Behind a count of edits.
            chunks.data = Some(offset + 4);
        }
        let to = match &kind {
            b"desc" => Some(&mut chunks.description),
            b"kuki" => Some(&mut chunks.cookie),
            b"pakt" => Some(&mut chunks.table),
            _ => None,
        };
        if let Some(to) = to {
            if length > LONGEST_CHUNK {
                return Err(Fault::damaged("damaged: its header is too long"));
            }
            *to = window.get(offset, length as usize)?.to_vec();
        }
        // The last chunk may be of unknown length.
        match offset.checked_add(length) {
            Some(next) if length >> 63 == 0 => offset = next,
            _ => break,
        }
    }
    Ok(chunks)
}

fn codec_name(code: &[u8]) -> String {
    let name = match code {
        b"aach" | b"aacp" => "HE-AAC",
        b"aacl" => "AAC-LD",
        b"aace" | b"aacf" | b"aacg" => "AAC-ELD",
        b"usac" => "xHE-AAC",
        b".mp1" => "MP1",
        b".mp2" => "MP2",
        b".mp3" => "MP3",
        b"ima4" => "IMA ADPCM",
        b"ms\0\x02" => "Microsoft ADPCM",
        b"ms\0\x11" => "DVI ADPCM",
        b"ms\x001" | b"agsm" => "GSM 6.10",
        b"MAC3" => "MACE 3:1",
        b"MAC6" => "MACE 6:1",
        b"QDMC" | b"QDM2" => "QDesign Music",
        b"Qclp" => "QCELP",
        b"opus" | b"Opus" => "Opus",
        b"flac" => "FLAC",
        b"ac-3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b"ilbc" => "iLBC",
        b"samr" | b"sawb" => "AMR",
        _ => return format!("the codec {} in CAF", code.escape_ascii()),
    };
    format!("{name} in CAF")
}

/// The configuration alone, without the boxes that older programs put around it.
fn alac_cookie(cookie: &[u8]) -> &[u8] {
    if cookie.get(4..8) == Some(b"frma") {
        return child(cookie, b"alac")
            .and_then(|content| content.get(4..))
            .unwrap_or_default();
    }
    cookie
}

fn aac_format(cookie: &[u8]) -> Result<Format, Fault> {
    match aac_config(cookie) {
        Some((_, config)) => aac::format(config),
        None => aac::format(cookie),
    }
}

/// The sizes of all packets, each in as few bytes as it needs.
struct Table {
    table: Vec<u8>,
    at: usize,
    left: u64,
    offset: u64,
    /// The size of every packet, or 0.
    packet_bytes: u32,
    /// Whether the number of frames follows each size.
    has_frames: bool,
}

impl Table {
    fn number(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        loop {
            let byte = *self.table.get(self.at)?;
            self.at += 1;
            value = value.checked_mul(128)? | u32::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    }
}

impl Places for Table {
    fn next(&mut self, _window: &mut Window) -> Result<Option<Place>, Fault> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let length = match self.packet_bytes {
            0 => self.number(),
            constant => Some(constant),
        };
        if self.has_frames {
            self.number();
        }
        let Some(length) = length else {
            return Err(Fault::damaged(TABLE_IS_DAMAGED));
        };
        let offset = self.offset;
        self.offset += u64::from(length);
        Ok(Some(Place { offset, length }))
    }
}
