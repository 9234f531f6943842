//! A position in a line of a manifest, and the tokens that can be read there.

use std::borrow::Cow;

use crate::hash::Hash;
use crate::json_string::read_string;

/// A parsed value, or the reason why the text is invalid.
pub(super) type Parsed<T> = Result<T, String>;

pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Cursor { text, at: 0 }
    }

    /// The text from the current position on.
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    #[cold]
    fn expected<T>(&self, expected: &str) -> Parsed<T> {
        Err(format!("at byte {}: expected {expected:?}", self.at))
    }

    /// Skips `literal` if the text continues with it. Inlined, so that the
    /// comparison with a literal is a few machine instructions.
    #[inline(always)]
    pub(super) fn accept(&mut self, literal: &str) -> bool {
        let found = self.rest().starts_with(literal.as_bytes());
        self.at += if found { literal.len() } else { 0 };
        found
    }

    /// Skips `literal`, which must be next.
    #[inline(always)]
    pub(super) fn expect(&mut self, literal: &str) -> Parsed<()> {
        match self.accept(literal) {
            true => Ok(()),
            false => self.expected(literal),
        }
    }

    pub(super) fn end(&self) -> Parsed<()> {
        match self.rest() {
            [] => Ok(()),
            _ => self.expected("the end of the line"),
        }
    }

    pub(super) fn optional<T>(&mut self, token: fn(&mut Self) -> Parsed<T>) -> Parsed<Option<T>> {
        match self.accept("null") {
            true => Ok(None),
            false => token(self).map(Some),
        }
    }

    /// An unsigned integer without leading zeros.
    pub(super) fn uint(&mut self) -> Parsed<u64> {
        let digits = self.rest();
        let mut value: u64 = 0;
        let mut length = 0;
        while let Some(digit @ b'0'..=b'9') = digits.get(length) {
            let digit = u64::from(digit - b'0');
            // Fewer digits than the largest number has need no check.
            let next = match length < 19 {
                true => Some(value * 10 + digit),
                false => value.checked_mul(10).and_then(|n| n.checked_add(digit)),
            };
            let Some(next) = next else {
                return self.expected("an integer of 64 bits");
            };
            value = next;
            length += 1;
        }
        if length == 0 || (length > 1 && digits[0] == b'0') {
            return self.expected("an integer");
        }
        self.at += length;
        Ok(value)
    }

    pub(super) fn int(&mut self) -> Parsed<i64> {
        let is_negative = self.accept("-");
        let magnitude = self.uint()?;
        let value = match is_negative {
            true => 0i64.checked_sub_unsigned(magnitude),
            false => i64::try_from(magnitude).ok(),
        };
        value.map_or_else(|| self.expected("an integer of 64 bits"), Ok)
    }

    pub(super) fn float(&mut self) -> Parsed<f64> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e');
        let length = self.rest().iter().take_while(|byte| is_part(byte)).count();
        // `parse` also accepts "inf" and "nan", whose letters are excluded here.
        let Ok(value) = self.text[self.at..self.at + length].parse() else {
            return self.expected("a number");
        };
        self.at += length;
        Ok(value)
    }

    /// A string of arbitrary bytes.
    pub(super) fn bytes(&mut self) -> Parsed<Cow<'a, [u8]>> {
        let rest = self.rest();
        let Some(length) = string_length(rest) else {
            return self.expected("a string");
        };
        match read_string(&rest[..length]) {
            Ok(bytes) => {
                self.at += length;
                Ok(bytes)
            }
            Err(error) => Err(format!("at byte {}: {error}", self.at)),
        }
    }

    /// A string of UTF-8.
    pub(super) fn text(&mut self) -> Parsed<String> {
        let at = self.at;
        let bytes = self.bytes()?.into_owned();
        String::from_utf8(bytes).map_err(|_| format!("at byte {at}: text is not UTF-8"))
    }

    pub(super) fn hash(&mut self) -> Parsed<Hash> {
        let mut hash = [0; 32];
        let rest = self.rest();
        let is_quoted = rest.first() == Some(&b'"') && rest.get(65) == Some(&b'"');
        let digits = rest.get(1..65).filter(|_| is_quoted).unwrap_or(&[]);
        if digits.is_empty() {
            return self.expected("a hash");
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
            if high > 15 || low > 15 {
                return self.expected("a hash");
            }
            *byte = high << 4 | low;
        }
        self.at += 66;
        Ok(hash)
    }
}

/// The value of each hexadecimal digit, 255 for all other bytes.
const NIBBLES: [u8; 256] = {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// Length, including the quotes, of the string at the start of `text`. `None` if
/// it is incomplete or contains a control character.
fn string_length(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}
