//! Any bytes as a manifest: refused, or read back the same after they were
//! written. Strings, paths, numbers and tables are all inside.
#![no_main]

use distill_index::{seal, Manifest};
use libfuzzer_sys::fuzz_target;

/// What a real one looks like, for the fuzzer to start from.
const START: &str = "{\n\"version\":1,\n\"header\":{},\n\"packs\":[\n{\"name\":\"p\",\"rows\":9,\
    \"bytes\":7,\"mtime_ns\":1,\"ctime_ns\":-1,\"checksum\":\"HASH\",\"backend\":\"cpu\"}\n],\n\
    \"contents\":[\n{\"hash\":\"HASH\",\"rows\":4,\"segments\":[[0,0,3],[0,5,1]],\"silent\":0,\
    \"sums\":[1,0.5,2e-3,-1,4],\"skipped\":null}\n],\n\"files\":[\n{\"path\":\"a/\\udcff.wav\",\
    \"size\":5,\"mtime_ns\":1,\"ctime_ns\":1,\"inode\":3,\"racy\":false,\"content_hash\":\"HASH\",\
    \"skipped\":null}\n],\n";

/// Two bytes choose a place, the next how many go, the rest come instead.
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
        let again = manifest.to_bytes().expect("what was read can be written");
        assert_eq!(Manifest::from_bytes(&again).expect("and read"), manifest);
        let live = manifest.live();
        assert!(live.segments.iter().all(|s| s[3] > 0));
        assert!(manifest.totals().rows <= i64::MAX as u64);
    }
}

fuzz_target!(|data: &[u8]| {
    check(data);
    // Past the checksum.
    check(&seal(data.to_vec()));
    check(&seal(edited(data)));
});
