//! A text with its checksum, and how its parts are read in two threads.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use memchr::memmem;

use super::cursor::Parsed;
use super::format::{check_not_newer, first_lines, split_seal};
use super::lines::{Lines, Text, BLOCK_BYTES};
use crate::progress::{Progress, Stage};
use crate::threads::both;
use crate::{Error, Result};

/// The first line of the table of files, after the end of the line before. Only there it
/// can be: strings have no newlines.
const FILES_START: &[u8] = b"\n\"files\":[\n";

/// Enough of the start of a text for its version.
const START_BYTES: usize = 64;

/// A text to parse: all before the last line, the length of that, and the checksum in the
/// last line.
pub(super) struct Sealed<T> {
    pub(super) text: T,
    pub(super) length: u64,
    pub(super) checksum: Vec<u8>,
}

/// What tells a text from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextId {
    length: u64,
    hash: blake3::Hash,
}

impl<'a> Sealed<&'a [u8]> {
    pub(super) fn bytes(bytes: &'a [u8]) -> Result<Self> {
        let (text, checksum) = split_seal(bytes).map_err(Error::Manifest)?;
        Ok(Sealed {
            text,
            length: text.len() as u64,
            checksum: checksum.to_vec(),
        })
    }
}

impl<T: Text> Sealed<T> {
    /// What tells the text from others, if its checksum is one.
    pub(super) fn id(&self) -> Option<TextId> {
        let (length, hash) = (self.length, blake3::Hash::from_hex(&self.checksum));
        hash.ok().map(|hash| TextId { length, hash })
    }

    /// Parses two parts of the text in two threads: what is before the table of files, and
    /// that table, which is not parsed if it has the text of `known`. The thread that ends first compares the checksum. If it is wrong, or the
    /// text is of a later version, this is reported before any error of the parsers, which
    /// are safe for any bytes.
    pub(super) fn parse<A, B: Clone + Send + Sync>(
        &self,
        known: Option<(TextId, &B)>,
        progress: &dyn Progress,
        failed: impl Fn(io::Error) -> Error + Sync,
        before: impl FnOnce(&mut Lines) -> Parsed<A>,
        files: impl Fn(&mut Lines, u64) -> Parsed<B> + Sync,
    ) -> Result<(A, B)> {
        let (is_stopped, is_checked) = (AtomicBool::new(false), AtomicBool::new(false));
        let goes_on = |_| !is_stopped.load(Relaxed);
        let reported = |at| {
            if self.length > BLOCK_BYTES as u64 {
                progress.report(Stage::Cache, at, self.length);
            }
            is_stopped.fetch_or(progress.should_stop(), Relaxed);
            goes_on(at)
        };
        let check = |goes_on: &dyn Fn(u64) -> bool| match is_checked.swap(true, Relaxed) {
            true => Ok(()),
            false => self.check(goes_on, &failed),
        };
        let (first, second) = both(
            || {
                let mut lines = Lines::new(&self.text, 0..self.length, &reported);
                let parsed = before(&mut lines).map(|parsed| (parsed, lines.position()));
                (check(&reported), lines.failed, parsed)
            },
            || {
                let start = self.find_files(&goes_on).unwrap_or(self.length);
                let known = known.filter(|(text, _)| self.has_files(start, text, &goes_on));
                let mut lines = Lines::new(&self.text, start..self.length, &goes_on);
                let files = match known {
                    Some((_, known)) => Ok(known.clone()),
                    None => files(&mut lines, self.length - start),
                };
                let parsed = files.map(|files| (files, start));
                (check(&goes_on), lines.failed, parsed)
            },
        );
        let ((checked, error, before), (also_checked, other_error, files)) = (first, second);
        if is_stopped.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        if let Some(error) = error.or(other_error) {
            return Err(failed(error));
        }
        checked.and(also_checked)?;
        let (before, end) = before.map_err(Error::Manifest)?;
        match files.map_err(Error::Manifest)? {
            (files, start) if start == end => Ok((before, files)),
            _ => Err(Error::Manifest("there is no table of files".into())),
        }
    }

    /// Where the table of files begins; `None` if there is none.
    fn find_files(&self, goes_on: &dyn Fn(u64) -> bool) -> Option<u64> {
        let finder = memmem::Finder::new(FILES_START);
        // Blocks overlap, because the line may begin in one and end in the next.
        let overlap = FILES_START.len() - 1;
        let mut block = vec![0; overlap + BLOCK_BYTES];
        let mut found = None;
        let searched = self.blocks(0..self.length, goes_on, |new, at| {
            block[overlap..overlap + new.len()].copy_from_slice(new);
            let place = finder.find(&block[..overlap + new.len()]);
            block.copy_within(new.len()..new.len() + overlap, 0);
            // After the newline, which is the end of the line before.
            found = place.map(|place| at + place as u64 + 1 - overlap as u64);
            found.is_none()
        });
        searched.ok().and(found)
    }

    /// Compares the checksum.
    fn check(
        &self,
        goes_on: &dyn Fn(u64) -> bool,
        failed: &dyn Fn(io::Error) -> Error,
    ) -> Result<()> {
        let (mut hasher, mut start) = (blake3::Hasher::new(), Vec::new());
        let read = self.blocks(0..self.length, goes_on, |block, at| {
            hasher.update(block);
            if at == 0 {
                start = block[..block.len().min(START_BYTES)].to_vec();
            }
            true
        });
        read.map_err(failed)?;
        match hasher.finalize().to_hex().as_bytes() == self.checksum {
            true => check_not_newer(&start),
            false => Err(Error::Manifest("its checksum is wrong".into())),
        }
    }

    /// Hands on a part of the text in blocks, each with where it begins, until `take` returns
    /// false.
    fn blocks(
        &self,
        part: Range<u64>,
        goes_on: &dyn Fn(u64) -> bool,
        mut take: impl FnMut(&[u8], u64) -> bool,
    ) -> io::Result<()> {
        let mut block = vec![0; (BLOCK_BYTES as u64).min(self.length) as usize];
        let mut at = part.start;
        while at < part.end && goes_on(at) {
            let wanted = (part.end - at).min(BLOCK_BYTES as u64) as usize;
            let block = &mut block[..wanted];
            self.text.read_at(block, at)?;
            if !take(block, at) {
                break;
            }
            at += wanted as u64;
        }
        Ok(())
    }

    /// Whether a file with the table that begins at `start`, and nothing else, has this text.
    fn has_files(&self, start: u64, text: &TextId, goes_on: &dyn Fn(u64) -> bool) -> bool {
        let before = first_lines();
        if text.length != before.len() as u64 + (self.length - start) {
            return false;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&before);
        let read = self.blocks(start..self.length, goes_on, |block, _| {
            hasher.update(block);
            true
        });
        read.is_ok() && hasher.finalize() == text.hash
    }
}
