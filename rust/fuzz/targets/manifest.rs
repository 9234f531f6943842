//! Arbitrary bytes as a manifest: either rejected, or equal after being written
//! and read again. Covers strings, paths, numbers and tables.
#![no_main]

use distill_index::{seal, FileTable, Manifest};
use libfuzzer_sys::fuzz_target;

/// A valid manifest, which the fuzzer edits.
const START: &str = "{\n\"version\":3,\n\"header\":{},\n\"packs\":[\n{\"name\":\"p\",\"rows\":9,\
    \"bytes\":7,\"mtime_ns\":1,\"ctime_ns\":-1,\"checksum\":\"HASH\",\"backend\":\"cpu\"}\n],\n\
    \"contents\":[\n{\"hash\":\"HASH\",\"rows\":4,\"segments\":[[0,0,3],[0,5,1]],\"silent\":0,\
    \"sums\":[1,0.5,2e-3,-1,4],\"skipped\":null}\n],\n\"files\":[\n{\"path\":\"a/\\udcff.wav\",\
    \"size\":5,\"mtime_ns\":1,\"ctime_ns\":1,\"inode\":3,\"racy\":false,\"content_hash\":\"HASH\",\
    \"skipped\":null}\n],\n";

/// Replaces a part of the valid manifest. Two bytes of `data` are the position,
/// the third is the number of bytes to remove, the rest is inserted.
fn edited(data: &[u8]) -> Vec<u8> {
    let mut text = START.replace("HASH", &"0f".repeat(32)).into_bytes();
    if let [high, low, gone, new @ ..] = data {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % text.len();
        let end = text.len().min(at + usize::from(*gone % 64));
        text.splice(at..end, new.iter().copied());
    }
    text
}

fn check(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        let again = manifest.to_bytes().expect("a manifest can be written");
        let read = Manifest::from_bytes(&again).expect("and read again");
        assert_eq!(read, manifest);
        let live = manifest.live();
        assert!(live.rows.iter().all(|&rows| rows > 0));
        assert!(live
            .pack
            .iter()
            .chain(&live.first)
            .all(|&number| number >= 0));
        assert!(manifest.totals().rows <= i64::MAX as u64);
    }
    if let Ok(table) = FileTable::from_bytes(bytes) {
        let read = FileTable::from_bytes(&table.to_bytes()).expect("a table can be read again");
        assert_eq!(read, table);
    }
}

fuzz_target!(|data: &[u8]| {
    check(data);
    // With a valid checksum, so that the parser sees it.
    check(&seal(data.to_vec()));
    check(&seal(edited(data)));
});
