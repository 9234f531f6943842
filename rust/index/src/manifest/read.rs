//! The manifest from JSON.
//!
//! The reader takes exactly what the writer writes: these keys, in this order,
//! one record a line. Leniency would buy nothing, because an edited file fails
//! its checksum anyway; and strictness is three times faster than a general
//! parser and leaves a hostile file few states to reach.

mod cursor;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use super::write::{CHECKSUM_END, CHECKSUM_KEY};
use super::{check, Content, FileEntry, Manifest, Pack, Segment, FORMAT_VERSION};
use crate::hash::Hash;
use crate::path::check_relative;
use crate::stat::StatKey;
use crate::{Error, Result};
use cursor::Cursor;

type Parsed<T> = std::result::Result<T, String>;

impl Manifest {
    /// Reads the bytes of a manifest file, and checks every rule. Never panics,
    /// and allocates in proportion to the bytes, whatever numbers they hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (body, checksum) = split_seal(bytes).map_err(Error::Manifest)?;
        let is_sealed = || blake3::hash(body).to_hex().as_bytes() == checksum;
        // The parser trusts no byte, so it need not wait for the checksum. What
        // is damaged is called that, whatever the parser made of it.
        let parsed = thread::scope(|scope| {
            let seal = thread::Builder::new().spawn_scoped(scope, is_sealed);
            let parsed = parse(body);
            match seal.map_or_else(|_| is_sealed(), |seal| seal.join().unwrap_or(false)) {
                true => parsed,
                false => Err("its checksum is wrong".into()),
            }
        });
        parsed.map_err(Error::Manifest)
    }
}

fn parse(body: &[u8]) -> Parsed<Manifest> {
    let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8")?;
    let mut cursor = Cursor::new(text);
    cursor.expect("{\n\"version\":")?;
    let version = cursor.uint()?;
    if version != FORMAT_VERSION {
        return Err(format!(
            "its version is {version}, this program reads {FORMAT_VERSION}"
        ));
    }
    cursor.expect(",\n\"header\":")?;
    let header = cursor.line()?.strip_suffix(',');
    let header = header.ok_or("the header does not end in a comma")?;
    check::header(header)?;
    let mut manifest = Manifest {
        header: header.to_owned(),
        ..Manifest::default()
    };
    manifest.packs = cursor.table("packs", pack)?;
    check_packs(&manifest.packs)?;
    let contents = cursor.table("contents", content)?;
    manifest.contents = check_contents(contents, &manifest.packs)?;
    let files = cursor.table("files", file)?;
    check_files(&files, &manifest)?;
    manifest.files = Arc::new(files);
    cursor.end()?;
    check::whole(&manifest)?;
    Ok(manifest)
}

/// The text before the checksum, and the checksum.
fn split_seal(bytes: &[u8]) -> Parsed<(&[u8], &[u8])> {
    const CUT: &str = "it has no checksum at its end";
    let rest = bytes.strip_suffix(CHECKSUM_END).ok_or(CUT)?;
    let digits = rest.len().checked_sub(64).ok_or(CUT)?;
    let (rest, checksum) = rest.split_at(digits);
    let body = rest.strip_suffix(CHECKSUM_KEY).ok_or(CUT)?;
    Ok((body, checksum))
}

fn check_packs(packs: &[Pack]) -> Parsed<()> {
    let mut names = std::collections::HashSet::new();
    for pack in packs {
        check::pack(pack)?;
        if !names.insert(&pack.name) {
            return Err(format!("pack {:?} is listed twice", pack.name));
        }
    }
    Ok(())
}

fn check_contents(
    contents: Vec<(Hash, u64, Content)>,
    packs: &[Pack],
) -> Parsed<HashMap<Hash, Content>> {
    if !contents.is_sorted_by(|a, b| a.0 < b.0) {
        return Err("contents are not in order, or listed twice".into());
    }
    let mut table = HashMap::with_capacity(contents.len());
    for (hash, rows, content) in contents {
        check::content(&content, packs)?;
        if rows != content.rows() {
            return Err(format!("a content of {rows} rows has {}", content.rows()));
        }
        table.insert(hash, content);
    }
    Ok(table)
}

fn check_files(files: &[FileEntry], manifest: &Manifest) -> Parsed<()> {
    if !files.is_sorted_by(|a, b| a.path < b.path) {
        return Err("files are not in order, or listed twice".into());
    }
    for file in files {
        let named = || String::from_utf8_lossy(&file.path).into_owned();
        check_relative(&file.path).map_err(|rule| format!("path {:?} {rule}", named()))?;
        match (&file.content, &file.skipped) {
            (Some(hash), None) if manifest.contents.contains_key(hash) => {}
            (None, Some(_)) => {}
            (Some(_), None) => return Err(format!("the content of {:?} is not listed", named())),
            _ => {
                return Err(format!(
                    "{:?} must have a content or be skipped, and not both",
                    named()
                ))
            }
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
    content.skipped = cursor.optional(Cursor::text)?;
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
    let skipped = cursor.optional(Cursor::text)?;
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
    })
}
