//! JSON strings of arbitrary bytes.
//!
//! Each byte that is not part of valid UTF-8 becomes a lone surrogate, `\udc80`
//! to `\udcff`, as Python's "surrogateescape" (PEP 383) does. Python's
//! `json.loads` then returns the same `str` as `os.fsdecode` for that path.

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

/// Returns the bytes that a JSON string with its quotes represents.
///
/// # Errors
///
/// If it is not a JSON string, or has a surrogate that represents no byte.
pub(crate) fn read_string(quoted: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    const BAD: &str = "a damaged string";
    let inner = quoted.strip_prefix(b"\"").ok_or(BAD)?;
    let inner = inner.strip_suffix(b"\"").ok_or(BAD)?;
    if !inner.contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // Deserialized as bytes, a lone surrogate is no error: serde_json returns
    // its three bytes of generalised UTF-8 (WTF-8).
    let mut json = serde_json::Deserializer::from_slice(quoted);
    let wtf8 = json.deserialize_bytes(Bytes).map_err(|_| BAD)?;
    json.end().map_err(|_| BAD)?;
    unescape_surrogates(&wtf8).map(Cow::Owned)
}

/// Replaces the WTF-8 of U+DC80..=U+DCFF with the bytes 0x80..=0xFF.
fn unescape_surrogates(wtf8: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(wtf8.len());
    let mut rest = wtf8;
    while let [first, tail @ ..] = rest {
        // In WTF-8 the surrogates are exactly the sequences ED A0..=BF xx.
        rest = match (first, tail) {
            (0xED, [high @ 0xA0..=0xBF, low, tail @ ..]) => {
                let code = 0xD000 | u32::from(high & 0x3F) << 6 | u32::from(low & 0x3F);
                match u8::try_from(code.wrapping_sub(0xDC00)) {
                    Ok(byte @ 0x80..) => out.push(byte),
                    _ => return Err("a surrogate that represents no byte"),
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
    fn undecodable_bytes_become_lone_surrogates() {
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
        fn bytes_survive_a_round_trip(bytes: Vec<u8>) {
            let mut out = Vec::new();
            write_string(&mut out, &bytes);
            let read = read_string(&out).unwrap();
            prop_assert_eq!(read.as_ref(), bytes.as_slice());
        }

        #[test]
        fn arbitrary_strings_never_panic(text: String) {
            let _ = read_string(format!("\"{text}\"").as_bytes());
            let _ = read_string(text.as_bytes());
        }
    }
}
