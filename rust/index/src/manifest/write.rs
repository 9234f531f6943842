//! Writing a manifest as JSON: one record per line, sorted, so that equal tables
//! give equal bytes, and a checksum in the last line.

use super::check;
use super::format::{seal, FORMAT_VERSION};
use super::tables::Manifest;
use crate::hash::Hash;
use crate::json_string::write_string;
use crate::records::{Content, FileEntry, Pack};
use crate::skip_reason::SkipReason;
use crate::threads::both;
use crate::{Error, Result};

impl Manifest {
    /// The bytes of the manifest file. Files whose content is not in the table
    /// of contents are left out, so that the file is complete.
    ///
    /// # Errors
    ///
    /// If two contents have the same row, or totals do not fit 63 bits.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(seal(self.to_parts()?.concat()))
    }

    /// Everything but the last line, in three consecutive parts, which are made
    /// in parallel.
    pub(super) fn to_parts(&self) -> Result<[Vec<u8>; 3]> {
        let (contents, files) = both(|| self.sorted_contents(), || self.files_table());
        let contents = contents?;
        let (one, other) = contents.split_at(contents.len() / 2);
        let (head, rest) = both(
            || {
                let mut out = self.head(one.len());
                out.contents(one, true);
                out.bytes
            },
            || {
                let mut out = Writer::with_capacity(other.len());
                out.contents(other, one.is_empty());
                out.raw("\n],\n");
                out.bytes
            },
        );
        Ok([head, rest, files])
    }

    /// The contents sorted by hash, after the checks that a reader makes, too.
    fn sorted_contents(&self) -> Result<Vec<(&Hash, &Content)>> {
        check::whole(&self.packs, self.contents.values()).map_err(Error::Manifest)?;
        let mut contents: Vec<(&Hash, &Content)> = self.contents.iter().collect();
        contents.sort_unstable_by_key(|(hash, _)| *hash);
        Ok(contents)
    }

    /// A writer with the text before the records of the contents.
    fn head(&self, contents: usize) -> Writer {
        let mut out = Writer::start(contents);
        out.raw("\"header\":");
        out.raw(&self.header);
        out.raw(",\n");
        out.table("packs", self.packs.iter(), Writer::pack);
        out.raw("\"contents\":[");
        out
    }

    fn files_table(&self) -> Vec<u8> {
        let files = self.files.iter().filter(|file| match &file.content {
            Some(hash) => self.contents.contains_key(hash),
            None => !file.is_pending(),
        });
        let mut out = Writer::with_capacity(self.files.len());
        out.table("files", files, Writer::file);
        out.bytes
    }
}

/// The text of a table of files, without the last line.
pub(super) fn file_table(files: &[FileEntry]) -> Vec<u8> {
    let mut out = Writer::start(files.len());
    let hashed = files.iter().filter(|file| !file.is_pending());
    out.table("files", hashed, Writer::file);
    out.bytes
}

/// Appends JSON to a text. Written by hand because it is faster than serde
/// (docs/notes/rust.md).
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    integer: itoa::Buffer,
    float: zmij::Buffer,
}

impl Writer {
    fn with_capacity(records: usize) -> Self {
        Writer {
            // About the size of a record with a path of usual length.
            bytes: Vec::with_capacity(256 * records),
            ..Writer::default()
        }
    }

    /// A writer with the first lines of a file.
    fn start(records: usize) -> Self {
        let mut out = Writer::with_capacity(records);
        out.raw("{\n\"version\":");
        out.uint(FORMAT_VERSION);
        out.raw(",\n");
        out
    }

    fn table<T>(&mut self, name: &str, rows: impl Iterator<Item = T>, row: fn(&mut Self, T)) {
        self.raw("\"");
        self.raw(name);
        self.raw("\":[");
        for (index, record) in rows.enumerate() {
            self.raw(if index == 0 { "\n" } else { ",\n" });
            row(self, record);
        }
        self.raw("\n],\n");
    }

    /// Consecutive records of the table of contents. `is_start`: the first of
    /// them is the first of the table.
    fn contents(&mut self, contents: &[(&Hash, &Content)], is_start: bool) {
        for (index, content) in contents.iter().enumerate() {
            let is_first = is_start && index == 0;
            self.raw(if is_first { "\n" } else { ",\n" });
            self.content(*content);
        }
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

    fn content(&mut self, (hash, content): (&Hash, &Content)) {
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
        self.raw("}");
    }

    fn file(&mut self, file: &FileEntry) {
        self.raw("{\"path\":");
        self.string(&file.path);
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
        self.reason(file.skipped.as_ref());
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
