//! Recognises the first bytes of audio files.

/// Number of first bytes that [`sniff`] needs.
pub const SNIFF_BYTES: usize = 64;

/// The GUID that opens a Sony Wave64 file; its first four bytes are "riff".
const W64: &[u8] = b"riff\x2E\x91\xCF\x11\xA5\xD6\x28\xDB\x04\xC1\x00\x00";

/// First bytes that identify a format: Wave64, FLAC, Ogg (Vorbis, Opus), Core
/// Audio, an ID3 tag before MPEG audio, and Sun audio in both byte orders.
const MAGICS: [&[u8]; 7] = [W64, b"fLaC", b"OggS", b"caff", b"ID3", b".snd", b"dns."];

/// Whether a file that starts with `head` may be audio of a known format.
///
/// True does not mean that it can be decoded. `head` should have
/// [`SNIFF_BYTES`] bytes, unless the file is shorter.
pub fn sniff(head: &[u8]) -> bool {
    MAGICS.iter().any(|magic| head.starts_with(magic)) || is_chunked(head) || is_mpeg(head)
}

/// A container with its type after its size: `RIFF....WAVE`, `FORM....AIFF`.
fn is_chunked(head: &[u8]) -> bool {
    let (Some(outer), Some(kind)) = (head.get(..4), head.get(8..12)) else {
        return false;
    };
    match outer {
        b"RIFF" | b"RIFX" | b"RF64" | b"BW64" => kind == b"WAVE",
        b"FORM" => kind == b"AIFF" || kind == b"AIFC",
        _ => false,
    }
}

/// An MPEG audio frame: it starts with eleven 1 bits.
fn is_mpeg(head: &[u8]) -> bool {
    matches!(head, [0xFF, second, ..] if second & 0xE0 == 0xE0)
}

#[cfg(test)]
mod tests {
    use super::sniff;

    #[test]
    fn audio_formats_are_recognised_and_similar_formats_are_not() {
        let good: [&[u8]; 8] = [
            b"RIFF\0\0\0\0WAVEfmt ",
            b"RF64\xff\xff\xff\xffWAVEds64",
            b"FORM\0\0\0\0AIFC",
            b"fLaC\0",
            b"OggS",
            b"ID3\x04",
            b"\xff\xfb\x90\x64",
            b".snd\0\0\0\x18",
        ];
        let bad: [&[u8]; 8] = [
            b"",
            b"RIFF\0\0\0\0AVI LIST",
            b"RIFF\0\0\0\0WAV",
            b"FORM\0\0\0\0ILBM",
            b"riff\0\0\0\0WAVE",
            b"\xff",
            b"\xff\x1b",
            b"fLa",
        ];
        assert!(good.iter().all(|head| sniff(head)));
        assert!(!bad.iter().any(|head| sniff(head)));
    }
}
