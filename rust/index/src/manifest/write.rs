//! Writing a manifest as JSON: one record per line, sorted, so that equal tables
//! give equal bytes, and a checksum in the last line.

use std::io::{self, Write};

use super::check;
use super::format::{first_lines, last_line};
use super::sealed::TextId;
use super::tables::Manifest;
use crate::files::{File, Files};
use crate::hash::Hash;
use crate::json_string::write_string;
use crate::progress::{NoProgress, Progress, Stage};
use crate::records::{Content, Pack};
use crate::skip_reason::SkipReason;
use crate::{Error, Result};

/// Text is written and hashed in blocks of this size.
const BLOCK_BYTES: usize = 1 << 20;

impl Manifest {
    /// The bytes of the manifest file. Files whose content is not in the table
    /// of contents are left out, so that the file is complete.
    ///
    /// # Errors
    ///
    /// If two contents have the same row, or totals do not fit 63 bits.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.check()?;
        Ok(in_memory(|out| self.write(out)))
    }

    /// Makes the checks of all tables together that a reader makes, too.
    pub(super) fn check(&self) -> Result<()> {
        check::whole(&self.packs, self.contents.iter()).map_err(Error::Manifest)
    }

    /// Writes everything but the last line.
    pub(super) fn write(&self, out: &mut Writer) {
        out.raw("\"header\":");
        out.raw(&self.header);
        out.raw(",\n");
        out.table("packs", self.packs.iter(), Writer::pack);
        let numbers = self.contents.sorted().into_iter();
        let contents = numbers.map(|number| {
            let number = number as usize;
            (self.contents.hash(number), self.contents.at(number))
        });
        out.table("contents", contents, |out, (hash, content)| {
            out.content(hash, &content);
        });
        out.table(
            "files",
            self.saved_files().map(|(_, file)| file),
            Writer::file,
        );
    }

    /// The files that are saved, with their numbers.
    pub(super) fn saved_files(&self) -> impl Iterator<Item = (usize, File<'_>)> {
        let number_of = self.contents.of(&self.files);
        let files = self.files.iter().enumerate();
        files.filter(move |(index, file)| match file.content {
            Some(_) => number_of(*index).is_some(),
            None => !file.is_pending(),
        })
    }
}

/// Writes a table of files, without the last line.
pub(super) fn file_table(files: &Files, out: &mut Writer) {
    let hashed = files.iter().filter(|file| !file.is_pending());
    out.table("files", hashed, Writer::file);
}

/// Writes some text and a last line with its checksum. The error is of the kind
/// `Interrupted` if `progress` stops it.
pub(super) fn sealed(
    out: &mut dyn Write,
    progress: &dyn Progress,
    text: impl FnOnce(&mut Writer),
) -> io::Result<()> {
    let mut writer = Writer::new(out, progress);
    text(&mut writer);
    writer.write_block();
    match writer.failed {
        Some(error) => Err(error),
        None => writer.out.write_all(&last_line(writer.hasher.finalize())),
    }
}

/// What tells the file with some text from others.
pub(super) fn text_id(text: impl FnOnce(&mut Writer)) -> TextId {
    let mut nowhere = io::sink();
    let mut writer = Writer::new(&mut nowhere, &NoProgress);
    text(&mut writer);
    writer.write_block();
    TextId {
        length: writer.written,
        hash: writer.hasher.finalize(),
    }
}

/// The bytes of a file with some text.
pub(super) fn in_memory(text: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Memory can always be written to.
    let _ = sealed(&mut bytes, &NoProgress, text);
    bytes
}

/// Writes JSON. By hand because it is faster than serde (docs/notes/rust.md), in blocks
/// because the text of a million files has 500 MB.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    progress: &'a dyn Progress,
    written: u64,
    /// The first error; nothing is written after it.
    failed: Option<io::Error>,
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
    integer: itoa::Buffer,
    float: zmij::Buffer,
}

impl<'a> Writer<'a> {
    /// A writer of a text of which the first lines are written.
    fn new(out: &'a mut dyn Write, progress: &'a dyn Progress) -> Self {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 8);
        bytes.extend_from_slice(&first_lines());
        Writer {
            out,
            progress,
            written: 0,
            failed: None,
            hasher: blake3::Hasher::new(),
            bytes,
            integer: itoa::Buffer::new(),
            float: zmij::Buffer::new(),
        }
    }

    fn write_block(&mut self) {
        if self.failed.is_none() {
            self.hasher.update(&self.bytes);
            self.failed = self.out.write_all(&self.bytes).err();
            self.written += self.bytes.len() as u64;
        }
        self.bytes.clear();
    }

    fn table<T>(&mut self, name: &str, rows: impl Iterator<Item = T>, row: fn(&mut Self, T)) {
        self.raw("\"");
        self.raw(name);
        self.raw("\":[");
        for (index, record) in rows.enumerate() {
            self.raw(if index == 0 { "\n" } else { ",\n" });
            row(self, record);
            if self.bytes.len() >= BLOCK_BYTES {
                self.write_block();
                self.progress.report(Stage::Cache, self.written, 0);
                if self.failed.is_none() && self.progress.should_stop() {
                    self.failed = Some(io::ErrorKind::Interrupted.into());
                }
            }
        }
        self.raw("\n],\n");
    }

    fn pack(&mut self, pack: &Pack) {
        self.raw("{\"name\":");
        self.string(pack.name.as_bytes());
        self.raw(",\"rows\":");
        self.uint(pack.rows);
        self.raw(",\"bytes\":");
        self.uint(pack.bytes);
        self.raw(",\"mtime_ns\":");
        self.int(pack.mtime_ns);
        self.raw(",\"ctime_ns\":");
        self.int(pack.ctime_ns);
        self.raw(",\"checksum\":");
        self.string(pack.checksum.as_bytes());
        self.raw(",\"backend\":");
        self.string(pack.backend.as_bytes());
        self.raw("}");
    }

    fn content(&mut self, hash: &Hash, content: &Content) {
        self.raw("{\"hash\":");
        self.hash(hash);
        self.raw(",\"rows\":");
        self.uint(content.rows());
        self.raw(",\"segments\":[");
        for (index, segment) in content.segments.iter().enumerate() {
            self.raw(if index == 0 { "[" } else { ",[" });
            self.uint(segment.pack);
            self.raw(",");
            self.uint(segment.first);
            self.raw(",");
            self.uint(segment.rows);
            self.raw("]");
        }
        self.raw("],\"silent\":");
        self.uint(content.silent);
        self.raw(",\"sums\":[");
        for (index, sum) in content.sums.iter().enumerate() {
            self.raw(if index == 0 { "" } else { "," });
            self.float(*sum);
        }
        self.raw("],\"skipped\":");
        self.reason(content.skipped.as_ref());
        // Left out where there is none, so that the usual manifest is not longer for it.
        if content.partial.is_some() {
            self.raw(",\"partial\":");
            self.reason(content.partial.as_ref());
        }
        for (index, (first, chunks)) in content.silent_runs.iter().enumerate() {
            self.raw(if index == 0 {
                ",\"silent_runs\":[["
            } else {
                ",["
            });
            self.uint(*first);
            self.raw(",");
            self.uint(*chunks);
            self.raw("]");
        }
        self.raw(if content.silent_runs.is_empty() {
            "}"
        } else {
            "]}"
        });
    }

    fn file(&mut self, file: File) {
        self.raw("{\"path\":");
        self.string(file.path);
        self.raw(",\"size\":");
        self.uint(file.key.size);
        self.raw(",\"mtime_ns\":");
        self.int(file.key.mtime_ns);
        self.raw(",\"ctime_ns\":");
        self.int(file.key.ctime_ns);
        self.raw(",\"inode\":");
        self.uint(file.key.inode);
        self.raw(",\"racy\":");
        self.raw(if file.racy { "true" } else { "false" });
        self.raw(",\"content_hash\":");
        match &file.content {
            Some(hash) => self.hash(hash),
            None => self.raw("null"),
        }
        self.raw(",\"skipped\":");
        self.reason(file.skipped);
        // Left out where true, so that the usual manifest is not longer for it.
        self.raw(if file.selected {
            "}"
        } else {
            ",\"selected\":false}"
        });
    }

    fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn uint(&mut self, value: u64) {
        let digits = self.integer.format(value);
        self.bytes.extend_from_slice(digits.as_bytes());
    }

    fn int(&mut self, value: i64) {
        let digits = self.integer.format(value);
        self.bytes.extend_from_slice(digits.as_bytes());
    }

    /// The shortest digits that parse to the same number.
    fn float(&mut self, value: f64) {
        let digits = self.float.format_finite(value);
        self.bytes.extend_from_slice(digits.as_bytes());
    }

    fn string(&mut self, bytes: &[u8]) {
        write_string(&mut self.bytes, bytes);
    }

    fn reason(&mut self, reason: Option<&SkipReason>) {
        match reason {
            Some(reason) => {
                self.string(reason.text.as_bytes());
                self.raw(",\"code\":");
                self.string(reason.code.as_bytes());
            }
            None => self.raw("null"),
        }
    }

    fn hash(&mut self, hash: &Hash) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'"'; 66];
        for (pair, byte) in text[1..65].chunks_exact_mut(2).zip(hash) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        self.bytes.extend_from_slice(&text);
    }
}
