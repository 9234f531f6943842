//! Arbitrary bytes as a path.
#![no_main]

use distill_index::check_relative;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if check_relative(data).is_ok() {
        assert!(!data.is_empty() && data[0] != b'/' && !data.contains(&0));
        assert!(data
            .split(|&byte| byte == b'/')
            .all(|part| part != b"..".as_slice()));
    }
});
