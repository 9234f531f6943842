//! Arbitrary bytes as an audio file of every kind, and small files of each kind
//! with an edit: decoded or rejected, without a panic of the code around the codecs.
#![no_main]

use distill_audio::{Decoder, Kind};
use libfuzzer_sys::fuzz_target;

/// Small files, which the fuzzer edits.
const FILES: [(Kind, &[u8]); 7] = [
    (Kind::Mpeg, include_bytes!("../seeds/sound.mp3")),
    (Kind::Adts, include_bytes!("../seeds/sound.aac")),
    (Kind::Mp4, include_bytes!("../seeds/sound.m4a")),
    (Kind::Mp4, include_bytes!("../seeds/fragments.m4a")),
    (Kind::Flac, include_bytes!("../seeds/sound.flac")),
    (Kind::OggFlac, include_bytes!("../seeds/sound.oga")),
    (Kind::Caf, include_bytes!("../seeds/sound.caf")),
];

/// Replaces a part of a file. Two bytes of `data` are the position, the third
/// is the number of bytes to remove, the rest is inserted.
fn edited(file: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    if let [high, low, gone, new @ ..] = data {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % bytes.len();
        let end = bytes.len().min(at + usize::from(*gone));
        bytes.splice(at..end, new.iter().copied());
    }
    bytes
}

fn check(kind: Kind, bytes: Vec<u8>) {
    let Ok(mut decoder) = Decoder::open(Box::new(bytes), kind) else {
        return;
    };
    while let Ok(Some(block)) = decoder.next_block() {
        assert!(block.format.channels > 0);
        assert!(!block.samples.is_empty());
        assert_eq!(block.samples.len() % block.format.channels, 0);
        // A block and a packet at most.
        assert!(block.samples.len() / block.format.channels <= 1 << 18);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let (kind, file) = FILES[usize::from(*first) % FILES.len()];
    check(kind, edited(file, data));
    check(kind, data.to_vec());
});
