//! JSON strings for bytes that need not be UTF-8.
//!
//! A byte that is no part of valid UTF-8 becomes a lone surrogate, `\udc80` to
//! `\udcff`: Python's "surrogateescape" (PEP 383). Python's `json.loads` then
//! yields the very `str` that `os.fsdecode` gives for that path.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Visitor};

/// Appends `bytes` to `out` as a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        write_valid(out, chunk.valid().as_bytes());
        for byte in chunk.invalid() {
            out.extend_from_slice(format!("\\udc{byte:02x}").as_bytes());
        }
    }
    out.push(b'"');
}

fn write_valid(out: &mut Vec<u8>, text: &[u8]) {
    let needs_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| needs_escape(byte)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// The bytes that a JSON string, given with its quotes, stands for. The text
/// around it must be known to be UTF-8.
pub(crate) fn read_string(quoted: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    const BAD: &str = "a damaged string";
    let inner = quoted.strip_prefix(b"\"").ok_or(BAD)?;
    let inner = inner.strip_suffix(b"\"").ok_or(BAD)?;
    if !inner.contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // Asked for bytes, serde_json gives a lone surrogate as its three bytes of
    // generalised UTF-8 (WTF-8) instead of an error.
    let mut json = serde_json::Deserializer::from_slice(quoted);
    let wtf8 = json.deserialize_bytes(Bytes).map_err(|_| BAD)?;
    json.end().map_err(|_| BAD)?;
    unescape_surrogates(&wtf8).map(Cow::Owned)
}

/// Turns the WTF-8 of U+DC80..=U+DCFF back into the bytes 0x80..=0xFF.
fn unescape_surrogates(wtf8: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(wtf8.len());
    let mut rest = wtf8;
    while let [first, tail @ ..] = rest {
        // In WTF-8 a lead byte ED followed by A0..=BF is a surrogate and
        // nothing else is.
        rest = match (first, tail) {
            (0xED, [high @ 0xA0..=0xBF, low, tail @ ..]) => {
                let code = 0xD000 | u32::from(high & 0x3F) << 6 | u32::from(low & 0x3F);
                match u8::try_from(code.wrapping_sub(0xDC00)) {
                    Ok(byte @ 0x80..) => out.push(byte),
                    _ => return Err("a surrogate that stands for no byte"),
                }
                tail
            }
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    Ok(out)
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn undecodable_bytes_are_lone_surrogates() {
        let mut out = Vec::new();
        write_string(&mut out, b"a\xffb\xed\xa0\x80\"\\\n\xc3\xa9");
        let expected = "\"a\\udcffb\\udced\\udca0\\udc80\\\"\\\\\\u000a\u{e9}\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn other_surrogates_are_refused() {
        for bad in [r#""\ud800""#, r#""\udc7f""#, r#""\udd00""#, r#""\udfff""#] {
            assert!(read_string(bad.as_bytes()).is_err(), "{bad}");
        }
        let pair = read_string(br#""\ud83d\ude00""#).unwrap();
        assert_eq!(pair.as_ref(), "\u{1f600}".as_bytes());
    }

    proptest! {
        #[test]
        fn strings_survive_a_round_trip(bytes: Vec<u8>) {
            let mut out = Vec::new();
            write_string(&mut out, &bytes);
            let read = read_string(&out).unwrap();
            prop_assert_eq!(read.as_ref(), bytes.as_slice());
        }

        #[test]
        fn hostile_strings_never_panic(text: String) {
            let _ = read_string(format!("\"{text}\"").as_bytes());
            let _ = read_string(text.as_bytes());
        }
    }
}
