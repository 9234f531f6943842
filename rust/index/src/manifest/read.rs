//! Reading a manifest from JSON.
//!
//! The reader accepts only the exact text that the writer produces: these keys,
//! in this order, one record per line. An edited file fails its checksum anyway,
//! and a strict parser is faster than a general one and has few states that a
//! malicious file could reach (docs/notes/rust.md has the figures).

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::check;
use super::contents::{Contents, NO_CONTENT};
use super::cursor::{Cursor, Parsed};
use super::format::version;
use super::lines::{Lines, Text};
use super::sealed::{Sealed, TextId};
use super::tables::Manifest;
use crate::files::{File, Files};
use crate::hash::Hash;
use crate::path::check_relative;
use crate::progress::{NoProgress, Progress};
use crate::records::{Content, Pack, Segment};
use crate::skip_reason::SkipReason;
use crate::stat::StatKey;
use crate::threads::both;
use crate::{Error, Result};

/// About the size of a record of a content or a file. An estimate of the number of
/// records, from the size of a file.
const RECORD_BYTES: u64 = 256;

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
        parse(&Sealed::bytes(bytes)?, None, &NoProgress, in_memory)
    }
}

/// Parses a manifest. If its table of files has the text of `known`, that table is shared.
pub(super) fn parse<T: Text>(
    sealed: &Sealed<T>,
    known: Option<(TextId, &Arc<Files>)>,
    progress: &dyn Progress,
    failed: impl Fn(io::Error) -> Error + Sync,
) -> Result<Manifest> {
    let records = (sealed.length / RECORD_BYTES) as usize / 2;
    let before = |lines: &mut Lines| before_files(lines, records);
    let (mut manifest, files) = sealed.parse(known, progress, failed, before, parse_files)?;
    manifest.files = files;
    let Manifest {
        packs,
        contents,
        files,
        ..
    } = &manifest;
    let (numbers, whole) = both(
        || numbers(files, contents),
        || check::whole(packs, contents.iter()),
        || (),
    );
    whole.map_err(Error::Manifest)?;
    let numbers = numbers.map_err(Error::Manifest)?;
    manifest.contents.keep_numbers(&manifest.files, numbers);
    Ok(manifest)
}

/// The number of the content of each file, which must be listed.
fn numbers(files: &Files, contents: &Contents) -> Parsed<Vec<u32>> {
    let number = |file: File| match file.content.map(|hash| (hash, contents.number(&hash))) {
        Some((_, Some(number))) => Ok(number as u32),
        Some((hash, None)) => {
            let hash = blake3::Hash::from_bytes(hash);
            Err(format!(
                "a file has the content {hash}, which is not listed"
            ))
        }
        None => Ok(NO_CONTENT),
    };
    files.iter().map(number).collect()
}

/// Parses all of a manifest but its files.
fn before_files(lines: &mut Lines, records: usize) -> Parsed<Manifest> {
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
    manifest.contents = contents(lines, &manifest.packs, records)?;
    Ok(manifest)
}

/// Parses the first two lines.
pub(super) fn start(lines: &mut Lines) -> Parsed<()> {
    match lines.line()? {
        "{" => version(lines.line()?),
        _ => Err("the first line is not a brace".into()),
    }
}

/// Parses a table with one record per line, each read by `record`.
fn table(
    lines: &mut Lines,
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

/// Parses a table of files and the end of the text.
pub(super) fn parse_files(lines: &mut Lines, length: u64) -> Parsed<Arc<Files>> {
    let mut files = Files::with_capacity((length / RECORD_BYTES) as usize);
    table(lines, "files", |cursor| {
        file(cursor, |file| {
            if files.last_path().is_some_and(|last| last >= file.path) {
                return Err("files are not in order, or listed twice".into());
            }
            check_file(&file)
                .map_err(|rule| format!("path \"{}\" {rule}", file.path.escape_ascii()))?;
            files.push(file);
            Ok(())
        })
    })?;
    lines.end()?;
    files.shrink_to_fit();
    Ok(Arc::new(files))
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

fn contents(lines: &mut Lines, packs: &[Pack], capacity: usize) -> Parsed<Contents> {
    let mut found = Contents::default();
    found.reserve(capacity);
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
    if cursor.accept(",\"silent_runs\":[") {
        while cursor.accept("[") {
            content.silent_runs.push(run(cursor)?);
            if !cursor.accept(",") {
                break;
            }
        }
        cursor.expect("]")?;
    }
    cursor.expect("}")?;
    Ok((hash, rows, content))
}

fn run(cursor: &mut Cursor) -> Parsed<(u64, u64)> {
    let first = cursor.uint()?;
    cursor.expect(",")?;
    let chunks = cursor.uint()?;
    cursor.expect("]")?;
    Ok((first, chunks))
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
