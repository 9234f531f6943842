//! What a track of an MP4 file is coded with.

use crate::aac;
use crate::fault::Fault;
use crate::packets::Coding;

/// Bytes of a sample entry before its boxes, in version 0, with its own head.
const ENTRY_HEAD: usize = 36;

/// Returns the content of the first box of a kind in `bytes`.
pub(crate) fn child<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    let mut rest = bytes;
    while let Some((head, _)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let content = rest.get(8..length.min(rest.len()))?;
        if &head[4..8] == kind {
            return Some(content);
        }
        rest = rest.get(length..)?;
    }
    None
}

/// Returns what the first sample entry of a `stsd` box says, without the head of the box.
pub(crate) fn coding(description: &[u8]) -> Result<Coding, Fault> {
    let entry = description.get(8..).unwrap_or_default();
    let Some((head, rest)) = entry.split_at_checked(ENTRY_HEAD) else {
        return Err(Fault::damaged("damaged: its description is incomplete"));
    };
    let longer = match (head[16], head[17]) {
        (0, 1) => 16,
        (0, 2) => 36,
        _ => 0,
    };
    let boxes = rest.get(longer..).unwrap_or_default();
    let inner = child(boxes, b"wave").unwrap_or(boxes);
    match &head[4..8] {
        b"mp4a" => aac_coding(inner),
        b"alac" => {
            let cookie = child(inner, b"alac").and_then(|content| content.get(4..));
            match cookie {
                Some(cookie) => Ok(Coding::Alac(cookie.to_vec())),
                None => Err(Fault::damaged("damaged: it has no ALAC configuration")),
            }
        }
        b"enca" | b"drms" | b"drmi" => Err(Fault::not_decodable(
            "is encrypted, and plays only in the program that it was bought for",
        )),
        other => Err(Fault::needs_ffmpeg(&codec_name(other))),
    }
}

fn aac_coding(boxes: &[u8]) -> Result<Coding, Fault> {
    let descriptor = child(boxes, b"esds").and_then(|content| content.get(4..));
    match descriptor.and_then(aac_config) {
        Some((0x40 | 0x66..=0x68, config)) => Ok(Coding::Aac(aac::format(config)?)),
        Some((0x69 | 0x6B, _)) => Err(Fault::needs_ffmpeg("MP3 in MP4")),
        Some((kind, _)) => {
            let codec = format!("a codec with the number {kind}");
            Err(Fault::needs_ffmpeg(&codec))
        }
        None => Err(Fault::damaged("damaged: it has no AAC configuration")),
    }
}

/// Returns type and configuration of the decoder in an elementary stream descriptor.
pub(crate) fn aac_config(mut bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut object_type = None;
    loop {
        let (tag, content, rest) = descriptor(bytes)?;
        match tag {
            3 => {
                let flags = *content.get(2)?;
                let optional = [
                    (0x80, 2),
                    (0x40, 1 + usize::from(*content.get(3).unwrap_or(&0))),
                ];
                let skipped: usize = optional
                    .iter()
                    .filter(|(flag, _)| flags & flag != 0)
                    .map(|(_, length)| length)
                    .sum();
                let clock = if flags & 0x20 != 0 { 2 } else { 0 };
                bytes = content.get(3 + skipped + clock..)?;
            }
            4 => {
                object_type = Some(*content.first()?);
                // MP3 has no more of its own.
                bytes = content.get(13..)?;
                if bytes.is_empty() {
                    return Some((object_type?, &[]));
                }
            }
            5 => return Some((object_type?, content)),
            _ => bytes = rest,
        }
    }
}

/// Returns tag, content and what follows of a descriptor.
fn descriptor(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let tag = *bytes.first()?;
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        length = length << 7 | usize::from(byte & 0x7F);
        if byte & 0x80 == 0 || at > 4 {
            break;
        }
    }
    let end = (at + length).min(bytes.len());
    Some((tag, bytes.get(at..end)?, &bytes[end..]))
}

fn codec_name(code: &[u8]) -> String {
    let name = match code {
        b"ac-3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b"ac-4" => "AC-4",
        b"Opus" => "Opus in MP4",
        b"fLaC" => "FLAC in MP4",
        b".mp3" | b"ms\0U" => "MP3 in QuickTime",
        b"samr" | b"sawb" => "AMR",
        b"sowt" | b"twos" | b"lpcm" | b"in24" | b"in32" | b"fl32" | b"fl64" | b"raw " | b"ipcm" => {
            "PCM in QuickTime"
        }
        b"ulaw" | b"alaw" => "G.711 in QuickTime",
        b"ima4" => "ADPCM in QuickTime",
        _ => return format!("the codec {}", code.escape_ascii()),
    };
    name.into()
}
