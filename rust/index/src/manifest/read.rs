//! Reading a manifest from JSON.
//!
//! The reader accepts only the exact text that the writer produces: these keys,
//! in this order, one record per line. An edited file fails its checksum anyway,
//! and a strict parser is faster than a general one and has few states that a
//! malicious file could reach (docs/notes/rust.md has the figures).

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use memchr::memmem;

use super::check;
use super::cursor::{Cursor, Parsed};
use super::format::{check_not_newer, split_seal, version};
use super::tables::{Contents, Manifest};
use crate::hash::Hash;
use crate::path::check_relative;
use crate::records::{Content, FileEntry, Pack, Segment};
use crate::skip_reason::SkipReason;
use crate::stat::StatKey;
use crate::threads::both;
use crate::{Error, Result};

/// The start of the table of files.
const FILES: &[u8] = b"\"files\":[\n";

/// About the smallest size of a record of a content or a file. An estimate of
/// the number of records, from the size of a table, is not far too large.
const RECORD_BYTES: usize = 192;

impl Manifest {
    /// Parses the bytes of a manifest file, and checks every rule. Arbitrary
    /// bytes cause no panic and no allocation out of proportion to their length.
    ///
    /// # Errors
    ///
    /// [`Error::Manifest`] with the first rule that is broken.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (body, checksum) = split_seal(bytes).map_err(Error::Manifest)?;
        // A string contains no newline, so these bytes occur only once. The text
        // before and after them can be parsed in parallel.
        let cut = memmem::find(body, FILES).unwrap_or(body.len());
        let (tables, files) = body.split_at(cut);
        // The parser is safe for any bytes, so it does not wait for the checksum.
        // A wrong checksum is reported before any error of the parser.
        let (tables, (files, is_sealed)) = both(
            || parse_tables(tables),
            || (parse_files(files), check_seal(body, checksum)),
        );
        is_sealed?;
        check_not_newer(body)?;
        let manifest = tables.and_then(|tables| with_files(tables, files?));
        manifest.map_err(Error::Manifest)
    }
}

pub(super) fn check_seal(body: &[u8], checksum: &[u8]) -> Result<()> {
    match blake3::hash(body).to_hex().as_bytes() == checksum {
        true => Ok(()),
        false => Err(Error::Manifest("its checksum is wrong".into())),
    }
}

/// Parses the text before the table of files.
fn parse_tables(tables: &[u8]) -> Parsed<Manifest> {
    let mut cursor = Cursor::new(tables)?;
    version(&mut cursor)?;
    cursor.expect(",\n\"header\":")?;
    let header = cursor.line()?.strip_suffix(',');
    let header = header.ok_or("the header does not end in a comma")?;
    check::header(header)?;
    let mut manifest = Manifest {
        header: header.to_owned(),
        ..Manifest::default()
    };
    cursor.table("packs", |cursor| {
        manifest.packs.push(pack(cursor)?);
        Ok(())
    })?;
    check_packs(&manifest.packs)?;
    manifest.contents = contents(&mut cursor, &manifest.packs)?;
    cursor.end()?;
    Ok(manifest)
}

pub(super) fn parse_files(table: &[u8]) -> Parsed<Vec<FileEntry>> {
    let mut cursor = Cursor::new(table)?;
    let mut files: Vec<FileEntry> = Vec::with_capacity(table.len() / RECORD_BYTES);
    cursor.table("files", |cursor| {
        let file = file(cursor)?;
        if files.last().is_some_and(|last| last.path >= file.path) {
            return Err("files are not in order, or listed twice".into());
        }
        check_file(&file)
            .map_err(|rule| format!("path \"{}\" {rule}", file.path.escape_ascii()))?;
        files.push(file);
        Ok(())
    })?;
    cursor.end()?;
    Ok(files)
}

/// Adds the files, and checks the rules across the tables.
fn with_files(manifest: Manifest, files: Vec<FileEntry>) -> Parsed<Manifest> {
    let (whole, known) = both(
        || check::whole(&manifest.packs, manifest.contents.values()),
        || check_known(&files, &manifest.contents),
    );
    whole.and(known)?;
    Ok(Manifest {
        files: Arc::new(files),
        ..manifest
    })
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

fn contents(cursor: &mut Cursor, packs: &[Pack]) -> Parsed<Contents> {
    let mut found: Vec<(Hash, Content)> = Vec::with_capacity(cursor.rest().len() / RECORD_BYTES);
    cursor.table("contents", |cursor| {
        let (hash, rows, content) = content(cursor)?;
        if found.last().is_some_and(|(last, _)| *last >= hash) {
            return Err("contents are not in order, or listed twice".into());
        }
        check::content(&content, packs)?;
        if rows != content.rows() {
            return Err(format!(
                "rows={rows} of a content differs from the {} rows of its segments",
                content.rows()
            ));
        }
        found.push((hash, content));
        Ok(())
    })?;
    // Filled only now that the number of contents is known: a table that is too
    // large is slower.
    let mut table = Contents::with_capacity_and_hasher(found.len(), BuildHasherDefault::new());
    table.extend(found);
    Ok(table)
}

/// Checks the rules for one file. The error completes the sentence "path ...".
fn check_file(file: &FileEntry) -> std::result::Result<(), &'static str> {
    check_relative(&file.path)?;
    match file.content.is_some() == file.skipped.is_some() {
        true => Err("must have either a content hash or a skip reason"),
        false => Ok(()),
    }
}

/// Checks that the content of each file is listed.
fn check_known(files: &[FileEntry], contents: &Contents) -> Parsed<()> {
    for file in files {
        if let Some(hash) = file.content.filter(|hash| !contents.contains_key(hash)) {
            let hash = blake3::Hash::from_bytes(hash);
            return Err(format!(
                "a file has the content {hash}, which is not listed"
            ));
        }
    }
    Ok(())
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

fn file(cursor: &mut Cursor) -> Parsed<FileEntry> {
    cursor.expect("{\"path\":")?;
    let path = cursor.bytes()?.into();
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
    Ok(FileEntry {
        path,
        key: StatKey {
            size,
            mtime_ns,
            ctime_ns,
            inode,
        },
        racy,
        content,
        skipped,
        selected,
    })
}
