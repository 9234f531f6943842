//! A text with its checksum, and how its parts are read in two threads.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use blake3::Hasher;
use memchr::memmem;

use super::cursor::Parsed;
use super::format::{check_not_newer, first_lines, split_seal};
use super::lines::{Lines, Text, BLOCK_BYTES};
use crate::progress::{Progress, Stage, Tick};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextId {
    pub(super) length: u64,
    pub(super) hash: blake3::Hash,
}

/// What a text was found to be when it was read again.
struct Checked {
    hash: blake3::Hash,
    /// The hashes of what is before the table of files, and of a file with that table alone.
    parts: (blake3::Hash, blake3::Hash),
    start: Vec<u8>,
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
        let (length, hash) = (self.length, blake3::Hash::from_hex(&self.checksum).ok()?);
        // Upper case would be read, too.
        let is_written_so = hash.to_hex().as_bytes() == self.checksum;
        is_written_so.then_some(TextId { length, hash })
    }

    /// Parses two parts of the text in two threads: what is before the table of files, and
    /// that table, which is not parsed if it has the text of `known`.
    ///
    /// The thread that ends first compares the checksum. If it is wrong, or the text is of a
    /// later version, this is reported before any error of the parsers, which are safe for
    /// any bytes. It also hashes both parts, because the bytes that were parsed have to be
    /// those that the checksum is of.
    pub(super) fn parse<A, B: Clone + Send + Sync>(
        &self,
        known: Option<(TextId, &B)>,
        progress: &dyn Progress,
        failed: impl Fn(io::Error) -> Error + Sync,
        before: impl FnOnce(&mut Lines) -> Parsed<A>,
        files: impl Fn(&mut Lines, u64) -> Parsed<B> + Sync,
    ) -> Result<(A, B)> {
        let (is_stopped, is_checked) = (AtomicBool::new(false), AtomicBool::new(false));
        let parsed = AtomicU64::new(0);
        let goes_on = |_| !is_stopped.load(Relaxed);
        let counts = |count| {
            parsed.fetch_add(count, Relaxed);
            goes_on(count)
        };
        let poll = || {
            if self.length > BLOCK_BYTES as u64 {
                let parsed = parsed.load(Relaxed).min(self.length);
                progress.report(Stage::Cache, parsed, self.length);
            }
            is_stopped.fetch_or(progress.should_stop(), Relaxed);
        };
        let check = |cut, tick: Tick| match is_checked.swap(true, Relaxed) {
            true => Ok(None),
            false => self.check(cut, tick).map(Some),
        };
        let (first, second) = both(
            || {
                let tick = |count| {
                    poll();
                    counts(count)
                };
                let mut lines = Lines::new(&self.text, 0..self.length, Hasher::new(), &tick);
                let before = before(&mut lines);
                let (end, hash) = (lines.position(), lines.hash());
                let checked = check(end, &|_| tick(0));
                (lines.failed.map_or(checked, Err), before, end, hash)
            },
            || {
                let (start, unreadable) = match self.find_files(&goes_on) {
                    Ok(start) => (start.unwrap_or(self.length), None),
                    Err(error) => (self.length, Some(error)),
                };
                let rest = start..self.length;
                let mut lines = Lines::new(&self.text, rest, table_hasher(), &counts);
                let known = known.filter(|(text, _)| self.has_files(start, text, &counts));
                let (files, hash) = match known {
                    Some((text, known)) => (Ok(known.clone()), text.hash),
                    None => {
                        let files = files(&mut lines, self.length - start);
                        (files, lines.hash())
                    }
                };
                let checked = check(start, &goes_on);
                let failed = unreadable.or(lines.failed);
                (failed.map_or(checked, Err), files, start, hash)
            },
            poll,
        );
        let (checked, before, end, before_hash) = first;
        let (also_checked, files, start, files_hash) = second;
        if is_stopped.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        let (checked, also_checked) = (checked.map_err(&failed)?, also_checked.map_err(&failed)?);
        let Some(checked) = checked.or(also_checked) else {
            return Err(Error::Interrupted); // one of them checks
        };
        if checked.hash.to_hex().as_bytes() != self.checksum {
            return Err(Error::Manifest("its checksum is wrong".into()));
        }
        check_not_newer(&checked.start)?;
        let (before, files) = (
            before.map_err(Error::Manifest)?,
            files.map_err(Error::Manifest)?,
        );
        if start != end {
            return Err(Error::Manifest("there is no table of files".into()));
        }
        match (before_hash, files_hash) == checked.parts {
            true => Ok((before, files)),
            false => Err(failed(io::Error::other("it changed while it was read"))),
        }
    }

    /// The hash of the text. `tick` is told how much of it was read, and ends it.
    pub(super) fn hash(&self, tick: Tick) -> io::Result<blake3::Hash> {
        let mut hasher = Hasher::new();
        self.blocks(0..self.length, &|_| true, |block, at| {
            hasher.update(block);
            tick(at + block.len() as u64)
        })?;
        Ok(hasher.finalize())
    }

    /// Where the table of files begins; `None` if there is none.
    fn find_files(&self, tick: Tick) -> io::Result<Option<u64>> {
        let finder = memmem::Finder::new(FILES_START);
        // Blocks overlap, because the line may begin in one and end in the next.
        let overlap = FILES_START.len() - 1;
        let mut block = vec![0; overlap + BLOCK_BYTES];
        let mut found = None;
        self.blocks(0..self.length, tick, |new, at| {
            block[overlap..overlap + new.len()].copy_from_slice(new);
            let place = finder.find(&block[..overlap + new.len()]);
            block.copy_within(new.len()..new.len() + overlap, 0);
            // After the newline, which is the end of the line before.
            found = place.map(|place| at + place as u64 + 1 - overlap as u64);
            found.is_none()
        })?;
        Ok(found)
    }

    /// Reads the text again, for its checksum and those of its parts before and after `cut`.
    fn check(&self, cut: u64, tick: Tick) -> io::Result<Checked> {
        let mut whole = Hasher::new();
        let mut parts = [Hasher::new(), table_hasher()];
        let mut start = Vec::new();
        self.blocks(0..self.length, tick, |block, at| {
            whole.update(block);
            let (first, rest) =
                block.split_at(cut.saturating_sub(at).min(block.len() as u64) as usize);
            parts[0].update(first);
            parts[1].update(rest);
            if at == 0 {
                start = block[..block.len().min(START_BYTES)].to_vec();
            }
            true
        })?;
        Ok(Checked {
            hash: whole.finalize(),
            parts: (parts[0].finalize(), parts[1].finalize()),
            start,
        })
    }

    /// Hands on a part of the text in blocks, each with where it begins, until `take` returns
    /// false.
    fn blocks(
        &self,
        part: Range<u64>,
        tick: Tick,
        mut take: impl FnMut(&[u8], u64) -> bool,
    ) -> io::Result<()> {
        let mut block = vec![0; (BLOCK_BYTES as u64).min(self.length) as usize];
        let mut at = part.start;
        while at < part.end {
            let wanted = (part.end - at).min(BLOCK_BYTES as u64) as usize;
            let block = &mut block[..wanted];
            self.text.read_at(block, at)?;
            if !take(block, at) || !tick(wanted as u64) {
                break;
            }
            at += wanted as u64;
        }
        Ok(())
    }

    /// Whether a file with the table that begins at `start`, and nothing else, has this text.
    fn has_files(&self, start: u64, text: &TextId, tick: Tick) -> bool {
        let mut hasher = table_hasher();
        if text.length != hasher.count() + (self.length - start) {
            return false;
        }
        let read = self.blocks(start..self.length, tick, |block, _| {
            hasher.update(block);
            true
        });
        read.is_ok() && hasher.finalize() == text.hash
    }
}

/// Hashes a file with a table of files alone: its first lines, to which the table is added.
fn table_hasher() -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&first_lines());
    hasher
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;

    use super::super::file::read_error;
    use super::super::format::{first_lines, seal};
    use super::super::read::{parse_files, start};
    use super::*;
    use crate::progress::NoProgress;

    /// A text of which one read fails, or reads another byte than the others.
    struct Faulty {
        bytes: Vec<u8>,
        reads: AtomicUsize,
        fault_at: usize,
        flips: bool,
    }

    impl Text for Faulty {
        fn read_at(&self, block: &mut [u8], at: u64) -> io::Result<()> {
            let is_faulty = self.reads.fetch_add(1, Relaxed) == self.fault_at;
            if is_faulty && !self.flips {
                return Err(io::Error::from_raw_os_error(5));
            }
            self.bytes.as_slice().read_at(block, at)?;
            if is_faulty {
                // A digit of a size, so that the text is still one.
                let digit = block.iter().rposition(|&byte| byte == b'7');
                digit.into_iter().for_each(|place| block[place] = b'3');
            }
            Ok(())
        }
    }

    fn table() -> Vec<u8> {
        let mut text = first_lines();
        text.extend_from_slice(b"\"files\":[");
        for number in 0..9000 {
            let comma = if number == 0 { "" } else { "," };
            let line = format!(
                "{comma}\n{{\"path\":\"{number:05}\",\"size\":7,\"mtime_ns\":1,\"ctime_ns\":1,\"inode\":1,\
                 \"racy\":false,\"content_hash\":null,\"skipped\":\"no reason\"}}"
            );
            text.extend_from_slice(line.as_bytes());
        }
        text.extend_from_slice(b"\n],\n");
        seal(text)
    }

    /// Parses the table, and returns the sum of the sizes.
    fn sizes(bytes: &[u8], fault_at: usize, flips: bool) -> (Result<u64>, usize) {
        let (text, checksum) = split_seal(bytes).unwrap();
        let sealed = Sealed {
            length: text.len() as u64,
            checksum: checksum.to_vec(),
            text: Faulty {
                bytes: text.to_vec(),
                reads: AtomicUsize::new(0),
                fault_at,
                flips,
            },
        };
        let failed = |error| read_error(Path::new("files.json"), error);
        let parsed = sealed.parse(None, &NoProgress, failed, start, parse_files);
        let sum = parsed.map(|((), files)| files.iter().map(|file| file.key.size).sum());
        (sum, sealed.text.reads.into_inner())
    }

    /// What cannot be read now is not damaged: the features that it lists must not be lost.
    #[test]
    fn an_error_of_any_read_is_no_damage() {
        let bytes = table();
        let (sum, reads) = sizes(&bytes, usize::MAX, false);
        assert_eq!(sum.unwrap(), 7 * 9000);
        assert!(reads >= 4, "{reads}");
        for fault_at in 0..reads {
            match sizes(&bytes, fault_at, false).0 {
                Err(Error::Io { .. }) => {}
                other => panic!("read {fault_at}: {other:?}"),
            }
        }
    }

    /// The bytes that are parsed are those that the checksum is of.
    #[test]
    fn a_text_that_changes_while_it_is_read_is_not_accepted() {
        let bytes = table();
        let (_, reads) = sizes(&bytes, usize::MAX, true);
        let mut refused = 0;
        for fault_at in 0..reads {
            // Which thread makes which read is chance, and some read what is not a part of the table.
            match sizes(&bytes, fault_at, true).0 {
                Ok(sum) => assert_eq!(sum, 7 * 9000, "read {fault_at}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "{reads}");
    }
}
