//! Reading a manifest from JSON.
//!
//! The reader accepts only the exact text that the writer produces: these keys,
//! in this order, one record per line. An edited file fails its checksum anyway,
//! and a strict parser is faster than a general one and has few states that a
//! malicious file could reach (docs/notes/rust.md has the figures).

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;

use super::check;
use super::contents::Contents;
use super::cursor::{Cursor, Parsed};
use super::format::{check_not_newer, split_seal, version};
use super::lines::Lines;
use super::tables::Manifest;
use crate::files::{File, Files};
use crate::hash::Hash;
use crate::path::check_relative;
use crate::records::{Content, Pack, Segment};
use crate::skip_reason::SkipReason;
use crate::stat::StatKey;
use crate::threads::both;
use crate::{Error, Result};

/// About the size of a record of a content or a file. An estimate of the number of
/// records, from the size of a file.
const RECORD_BYTES: u64 = 256;

/// A file to parse: its text before the last line, the length of that, and the checksum
/// in the last line.
pub(super) struct Sealed<R> {
    pub(super) body: R,
    pub(super) length: u64,
    pub(super) checksum: Vec<u8>,
}

impl<'a> Sealed<&'a [u8]> {
    pub(super) fn bytes(bytes: &'a [u8]) -> Result<Self> {
        let (body, checksum) = split_seal(bytes).map_err(Error::Manifest)?;
        Ok(Sealed {
            body,
            length: body.len() as u64,
            checksum: checksum.to_vec(),
        })
    }
}

impl<R: Read> Sealed<R> {
    /// Parses the lines of a file. A wrong checksum is reported before any error of the
    /// parser, which is safe for any bytes, and so is a later version.
    pub(super) fn parse<T>(
        self,
        parse: impl FnOnce(&mut Lines<R>) -> Parsed<T>,
        failed: impl Fn(io::Error) -> Error,
    ) -> Result<T> {
        let mut lines = Lines::new(self.body, self.length);
        let parsed = parse(&mut lines);
        let (hash, start) = lines.finish().map_err(failed)?;
        if hash.to_hex().as_bytes() != self.checksum {
            return Err(Error::Manifest("its checksum is wrong".into()));
        }
        check_not_newer(&start)?;
        parsed.map_err(Error::Manifest)
    }
}

/// The error of reading from memory, which there is none of.
pub(super) fn in_memory(error: io::Error) -> Error {
    Error::Invalid(error.to_string())
}

impl Manifest {
    /// Parses the bytes of a manifest file, and checks every rule. Arbitrary
    /// bytes cause no panic and no allocation out of proportion to their length.
    ///
    /// # Errors
    ///
    /// [`Error::Manifest`] with the first rule that is broken.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let sealed = Sealed::bytes(bytes)?;
        let length = sealed.length;
        sealed.parse(|lines| parse(lines, length, None), in_memory)
    }
}

/// Parses a manifest of `length` bytes. If its files are those of `known`, that table is
/// shared.
pub(super) fn parse<R: Read>(
    lines: &mut Lines<R>,
    length: u64,
    known: Option<&Arc<Files>>,
) -> Parsed<Manifest> {
    start(lines)?;
    let header = lines.line()?;
    let header = header.strip_prefix("\"header\":");
    let header = header.and_then(|header| header.strip_suffix(','));
    let header = header.ok_or("the third line is not the header")?;
    check::header(header)?;
    let mut manifest = Manifest {
        header: header.to_owned(),
        ..Manifest::default()
    };
    table(lines, "packs", |cursor| {
        manifest.packs.push(pack(cursor)?);
        Ok(())
    })?;
    check_packs(&manifest.packs)?;
    manifest.contents = contents(lines, length, &manifest.packs)?;
    let (packs, contents) = (&manifest.packs, &manifest.contents);
    let (files, whole) = both(
        || parse_files(lines, length, known, Some(contents)),
        || check::whole(packs, contents.iter()),
    );
    whole?;
    manifest.files = files?;
    Ok(manifest)
}

/// Parses the first two lines.
pub(super) fn start<R: Read>(lines: &mut Lines<R>) -> Parsed<()> {
    match lines.line()? {
        "{" => version(lines.line()?),
        _ => Err("the first line is not a brace".into()),
    }
}

/// Parses a table with one record per line, each read by `record`.
fn table<R: Read>(
    lines: &mut Lines<R>,
    name: &str,
    mut record: impl FnMut(&mut Cursor) -> Parsed<()>,
) -> Parsed<()> {
    if lines.line()? != format!("\"{name}\":[") {
        return Err(format!("there is no table of {name}"));
    }
    let (mut number, mut is_last) = (0_u64, false);
    loop {
        let line = lines.line()?;
        if line == "]," && (is_last || number == 0) {
            return Ok(());
        }
        if is_last {
            return Err(format!(
                "the table of {name} does not end after its records"
            ));
        }
        number += 1;
        let mut cursor = Cursor::new(line);
        let parsed = record(&mut cursor).and_then(|()| {
            is_last = !cursor.accept(",");
            cursor.end()
        });
        parsed.map_err(|error| format!("record {number} of {name}: {error}"))?;
    }
}

/// Parses a table of files and the end of the text. `contents`: the contents that files may
/// have; `None` if any.
pub(super) fn parse_files<R: Read>(
    lines: &mut Lines<R>,
    length: u64,
    known: Option<&Arc<Files>>,
    contents: Option<&Contents>,
) -> Parsed<Arc<Files>> {
    let mut files = FilesBuilder {
        known,
        same: 0,
        changed: None,
        capacity: (length / RECORD_BYTES) as usize / if contents.is_some() { 2 } else { 1 },
    };
    table(lines, "files", |cursor| {
        file(cursor, |file| {
            if files.last_path().is_some_and(|last| last >= file.path) {
                return Err("files are not in order, or listed twice".into());
            }
            check_file(&file)
                .map_err(|rule| format!("path \"{}\" {rule}", file.path.escape_ascii()))?;
            check_known(&file, contents)?;
            files.push(file);
            Ok(())
        })
    })?;
    lines.end()?;
    Ok(files.finish())
}

/// A table of files that is being read. As long as it is the same as a known one, nothing
/// is stored.
struct FilesBuilder<'a> {
    known: Option<&'a Arc<Files>>,
    /// Number of files that are the same.
    same: usize,
    changed: Option<Files>,
    capacity: usize,
}

impl FilesBuilder<'_> {
    fn last_path(&self) -> Option<&[u8]> {
        match (&self.changed, self.known) {
            (Some(files), _) => files.last_path(),
            (None, Some(known)) => Some(known.get(self.same.checked_sub(1)?).path),
            (None, None) => None,
        }
    }

    fn push(&mut self, file: File) {
        if self.changed.is_none() {
            let known = self.known.filter(|known| self.same < known.len());
            if known.is_some_and(|known| known.get(self.same) == file) {
                self.same += 1;
                return;
            }
        }
        let (known, same, capacity) = (self.known, self.same, self.capacity);
        let files = self.changed.get_or_insert_with(|| match known {
            Some(known) => known.first(same),
            None => Files::with_capacity(capacity),
        });
        files.push(file);
    }

    fn finish(self) -> Arc<Files> {
        match (self.changed, self.known) {
            (Some(mut files), _) => {
                files.shrink_to_fit();
                Arc::new(files)
            }
            (None, Some(known)) if known.len() == self.same => Arc::clone(known),
            (None, Some(known)) => Arc::new(known.first(self.same)),
            (None, None) => Arc::default(),
        }
    }
}

fn check_packs(packs: &[Pack]) -> Parsed<()> {
    let mut names = HashSet::new();
    for pack in packs {
        check::pack(pack)?;
        if !names.insert(&pack.name) {
            return Err(format!("pack {:?} is listed twice", pack.name));
        }
    }
    Ok(())
}

fn contents<R: Read>(lines: &mut Lines<R>, length: u64, packs: &[Pack]) -> Parsed<Contents> {
    let mut found = Contents::default();
    found.reserve((length / RECORD_BYTES / 2) as usize);
    table(lines, "contents", |cursor| {
        let (hash, rows, content) = content(cursor)?;
        if found.last_hash().is_some_and(|last| *last >= hash) {
            return Err("contents are not in order, or listed twice".into());
        }
        check::content(&content, packs)?;
        if rows != content.rows() {
            return Err(format!(
                "rows={rows} of a content differs from the {} rows of its segments",
                content.rows()
            ));
        }
        found.push(hash, content);
        Ok(())
    })?;
    Ok(found)
}

/// Checks the rules for one file. The error completes the sentence "path ...".
fn check_file(file: &File) -> std::result::Result<(), &'static str> {
    check_relative(file.path)?;
    match file.content.is_some() == file.skipped.is_some() {
        true => Err("must have either a content hash or a skip reason"),
        false => Ok(()),
    }
}

/// Checks that the content of a file is listed.
fn check_known(file: &File, contents: Option<&Contents>) -> Parsed<()> {
    let (Some(hash), Some(contents)) = (file.content, contents) else {
        return Ok(());
    };
    match contents.number(&hash) {
        Some(_) => Ok(()),
        None => {
            let hash = blake3::Hash::from_bytes(hash);
            Err(format!(
                "a file has the content {hash}, which is not listed"
            ))
        }
    }
}

fn pack(cursor: &mut Cursor) -> Parsed<Pack> {
    cursor.expect("{\"name\":")?;
    let name = cursor.text()?;
    cursor.expect(",\"rows\":")?;
    let rows = cursor.uint()?;
    cursor.expect(",\"bytes\":")?;
    let bytes = cursor.uint()?;
    cursor.expect(",\"mtime_ns\":")?;
    let mtime_ns = cursor.int()?;
    cursor.expect(",\"ctime_ns\":")?;
    let ctime_ns = cursor.int()?;
    cursor.expect(",\"checksum\":")?;
    let checksum = cursor.text()?;
    cursor.expect(",\"backend\":")?;
    let backend = cursor.text()?;
    cursor.expect("}")?;
    Ok(Pack {
        name,
        rows,
        bytes,
        mtime_ns,
        ctime_ns,
        checksum,
        backend,
    })
}

fn content(cursor: &mut Cursor) -> Parsed<(Hash, u64, Content)> {
    let mut content = Content::default();
    cursor.expect("{\"hash\":")?;
    let hash = cursor.hash()?;
    cursor.expect(",\"rows\":")?;
    let rows = cursor.uint()?;
    cursor.expect(",\"segments\":[")?;
    while cursor.accept("[") {
        content.segments.push(segment(cursor)?);
        if !cursor.accept(",") {
            break;
        }
    }
    cursor.expect("],\"silent\":")?;
    content.silent = cursor.uint()?;
    cursor.expect(",\"sums\":[")?;
    for (index, sum) in content.sums.iter_mut().enumerate() {
        cursor.expect(if index == 0 { "" } else { "," })?;
        *sum = cursor.float()?;
    }
    cursor.expect("],\"skipped\":")?;
    content.skipped = cursor.optional(reason)?;
    if cursor.accept(",\"partial\":") {
        content.partial = Some(reason(cursor)?);
    }
    cursor.expect("}")?;
    Ok((hash, rows, content))
}

fn segment(cursor: &mut Cursor) -> Parsed<Segment> {
    let pack = cursor.uint()?;
    cursor.expect(",")?;
    let first = cursor.uint()?;
    cursor.expect(",")?;
    let rows = cursor.uint()?;
    cursor.expect("]")?;
    Ok(Segment { pack, first, rows })
}

/// A reason and its code, which manifests of earlier versions do not have.
fn reason(cursor: &mut Cursor) -> Parsed<SkipReason> {
    let text = cursor.text()?;
    match cursor.accept(",\"code\":") {
        true => Ok(SkipReason::new(cursor.text()?, text)),
        false => Ok(SkipReason::without_code(text)),
    }
}

/// Parses a record of a file and hands it to `store`.
fn file(cursor: &mut Cursor, store: impl FnOnce(File) -> Parsed<()>) -> Parsed<()> {
    cursor.expect("{\"path\":")?;
    let path = cursor.bytes()?;
    cursor.expect(",\"size\":")?;
    let size = cursor.uint()?;
    cursor.expect(",\"mtime_ns\":")?;
    let mtime_ns = cursor.int()?;
    cursor.expect(",\"ctime_ns\":")?;
    let ctime_ns = cursor.int()?;
    cursor.expect(",\"inode\":")?;
    let inode = cursor.uint()?;
    cursor.expect(",\"racy\":")?;
    let racy = cursor.accept("true");
    cursor.expect(if racy { "" } else { "false" })?;
    cursor.expect(",\"content_hash\":")?;
    let content = cursor.optional(Cursor::hash)?;
    cursor.expect(",\"skipped\":")?;
    let skipped = cursor.optional(reason)?;
    let selected = !cursor.accept(",\"selected\":false");
    cursor.expect("}")?;
    store(File {
        path: &path,
        key: StatKey {
            size,
            mtime_ns,
            ctime_ns,
            inode,
        },
        racy,
        content,
        skipped: skipped.as_ref(),
        selected,
    })
}
