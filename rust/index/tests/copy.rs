//! The binary copy of a manifest or a table of files: it gives the same tables as the JSON, or none.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use distill_index::{
    scan, seal, Content, Error, FileTable, Manifest, NoProgress, Options, Pack, Progress, Segment,
    SkipReason, Stage,
};
use tempfile::TempDir;

const CHECKSUM_BYTES: usize = 32;
/// Where the length and the hash of the JSON text are.
const TEXT: usize = 16;

/// A manifest with every kind of record: contents with one or several segments, without rows,
/// skipped, and used in part; files that share one, are skipped, and are not selected.
fn sample(folder: &Path) -> Manifest {
    for index in 0..12 {
        let bytes = match index {
            3 => String::new(),
            _ => format!("OggS{}", index % 9),
        };
        fs::write(folder.join(format!("{index:02}.wav")), bytes).unwrap();
    }
    let mut options = Options {
        extensions: vec!["wav".into()],
        ..Options::default()
    };
    let mut manifest = Manifest::default();
    let found = scan(&manifest, folder, &options, &NoProgress).unwrap();
    manifest.apply(&found);
    for name in ["a.safetensors", "b.safetensors"] {
        let pack = Pack {
            name: name.into(),
            rows: 1000,
            bytes: 7,
            mtime_ns: 1,
            ctime_ns: -1,
            checksum: "0f".repeat(32),
            backend: "cpu".into(),
        };
        manifest.add_pack(pack).unwrap();
    }
    let segment = |pack, first, rows| Segment { pack, first, rows };
    let reason = || Some(SkipReason::new("other".into(), "a \"reason\"\n".into()));
    for (index, todo) in (0_u64..).zip(found.todo()) {
        let first = 10 * index;
        let mut content = Content {
            segments: [segment(0, first, 3)].into_iter().collect(),
            silent: index,
            sums: [1.0, 0.1, 1e-300, -1.0 / 3.0, index as f64],
            ..Content::default()
        };
        match index {
            0 => content.segments.push(segment(1, 5, 5)),
            1 => content.segments.clear(),
            2 => content.silent_runs = vec![(1, 2)],
            3 => content.partial = reason(),
            4 => {
                content.segments.clear();
                content.skipped = reason();
            }
            _ => {}
        }
        manifest.set_content(todo.hash.unwrap(), content).unwrap();
    }
    manifest.set_header("{\"a\": [1, 2]}").unwrap();
    options.files = Some((0..10).map(|i| format!("{i:02}.wav").into()).collect());
    let fewer = scan(&manifest, folder, &options, &NoProgress).unwrap();
    manifest.apply(&fewer);
    assert!(manifest.files().iter().any(|file| !file.selected));
    assert!(manifest.files().iter().any(|file| file.skipped.is_some()));
    manifest
}

/// A folder with the manifest of the sample, and its copy.
fn saved() -> (TempDir, PathBuf, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = sample(folder.path());
    let path = folder.path().join("manifest.json");
    manifest.save(&path, &NoProgress).unwrap();
    manifest.save_copy(&path).unwrap();
    (folder, path, manifest)
}

fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("bin")
}

fn load(path: &Path) -> Manifest {
    Manifest::load(path, None, &NoProgress).unwrap()
}

/// The bytes of a copy with a checksum that fits.
fn resealed(mut copy: Vec<u8>) -> Vec<u8> {
    copy.truncate(copy.len() - CHECKSUM_BYTES);
    let checksum = blake3::hash(&copy);
    copy.extend_from_slice(checksum.as_bytes());
    copy
}

/// Replaces the JSON by a text of which nothing can be parsed, and says in the copy that this is
/// its text: what can be loaded then is what the copy holds.
fn without_json(path: &Path) {
    let text = b"{\n\"version\":3,\nnonsense\n";
    fs::write(path, seal(text.to_vec())).unwrap();
    let mut copy = fs::read(copy_of(path)).unwrap();
    copy[TEXT..TEXT + 8].copy_from_slice(&(text.len() as u64).to_le_bytes());
    copy[TEXT + 8..TEXT + 40].copy_from_slice(blake3::hash(text).as_bytes());
    fs::write(copy_of(path), resealed(copy)).unwrap();
}

#[test]
fn a_copy_holds_the_tables_of_the_json() {
    let (_folder, path, manifest) = saved();
    assert_eq!(load(&path), manifest);
    fs::remove_file(copy_of(&path)).unwrap();
    let parsed = load(&path);
    assert_eq!(parsed, manifest);
    parsed.save_copy(&path).unwrap();
    without_json(&path);
    let copied = load(&path);
    assert_eq!(copied, parsed);
    assert_eq!(copied.to_bytes().unwrap(), parsed.to_bytes().unwrap());
    assert_eq!(copied.totals(), parsed.totals());
    assert_eq!(copied.live(), parsed.live());
    assert!(copied.with_reasons().eq(parsed.with_reasons()));
}

#[test]
fn a_table_of_files_has_a_copy_too_and_shares_it_with_a_manifest() {
    let (folder, path, manifest) = saved();
    let table_path = folder.path().join("files.json");
    let mut selected = manifest.clone();
    selected.apply(&scan_all(&manifest, folder.path()));
    selected.save(&path, &NoProgress).unwrap();
    selected.save_copy(&path).unwrap();
    let table = selected.file_table();
    table.save(&table_path).unwrap();
    table.save_copy(&table_path).unwrap();
    without_json(&table_path);
    let known = FileTable::load(&table_path, &NoProgress).unwrap();
    assert_eq!(known, table);
    without_json(&path);
    let loaded = Manifest::load(&path, Some(&known), &NoProgress).unwrap();
    assert_eq!(loaded, selected);
    assert!(std::ptr::eq(loaded.files(), known.files()));
    assert_eq!(loaded.totals(), selected.totals());
}

fn scan_all(manifest: &Manifest, folder: &Path) -> distill_index::Scan {
    let options = Options {
        extensions: vec!["wav".into()],
        ..Options::default()
    };
    scan(manifest, folder, &options, &NoProgress).unwrap()
}

/// The JSON is damaged, wherever it is, with a copy as well as without.
#[test]
fn damage_of_the_json_is_found_in_spite_of_a_copy() {
    let (_folder, path, _) = saved();
    let json = fs::read(&path).unwrap();
    for at in (0..json.len()).step_by(7) {
        let mut bad = json.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, bad).unwrap();
        let found = Manifest::load(&path, None, &NoProgress);
        assert!(matches!(found, Err(Error::Manifest(_))), "{at}: {found:?}");
    }
    fs::remove_file(&path).unwrap();
    let found = Manifest::load(&path, None, &NoProgress);
    assert!(matches!(found, Err(Error::Io { .. })), "{found:?}");
}

#[test]
fn a_damaged_copy_is_not_used_and_is_written_again() {
    let (_folder, path, manifest) = saved();
    let good = fs::read(copy_of(&path)).unwrap();
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        for bad in [flipped, good[..at].to_vec()] {
            fs::write(copy_of(&path), bad).unwrap();
            assert_eq!(load(&path), manifest, "{at}");
        }
        if at % 50 == 0 {
            manifest.save_copy(&path).unwrap();
            assert_eq!(fs::read(copy_of(&path)).unwrap(), good, "{at}");
        }
    }
    for longer in [[&good[..], b"x"].concat(), [&good[..], &good[..]].concat()] {
        fs::write(copy_of(&path), longer).unwrap();
        assert_eq!(load(&path), manifest);
    }
    fs::remove_file(copy_of(&path)).unwrap();
    fs::create_dir(copy_of(&path)).unwrap();
    assert_eq!(load(&path), manifest);
    assert!(matches!(manifest.save_copy(&path), Err(Error::Io { .. })));
}

/// A copy with a valid checksum obeys every rule of a manifest, or is not used. With the JSON
/// that it names unreadable, "not used" is an error.
#[test]
fn a_forged_copy_breaks_no_rule() {
    let (_folder, path, manifest) = saved();
    without_json(&path);
    let good = fs::read(copy_of(&path)).unwrap();
    let (mut refused, mut changed) = (0, 0);
    for at in 0..good.len() - CHECKSUM_BYTES {
        for bits in [1 << (at % 8), 0xff] {
            let mut bad = good.clone();
            bad[at] ^= bits;
            fs::write(copy_of(&path), resealed(bad)).unwrap();
            match Manifest::load(&path, None, &NoProgress) {
                Err(Error::Manifest(_)) => refused += 1,
                Err(error) => panic!("{at}: {error:?}"),
                Ok(found) => {
                    changed += u32::from(found != manifest);
                    let again = Manifest::from_bytes(&found.to_bytes().unwrap()).unwrap();
                    assert_eq!(again, found, "{at}");
                    assert!(found.live().first.iter().all(|&row| row >= 0));
                }
            }
        }
    }
    // Stamps, for example, may be any.
    assert!(refused > 500 && changed > 100, "{refused} {changed}");
}

#[test]
fn only_the_tables_of_the_json_are_copied() {
    let (_folder, path, manifest) = saved();
    let before = fs::read(copy_of(&path)).unwrap();
    let mut other = manifest.clone();
    other.set_header("{}").unwrap();
    // The copy that is there is of the file.
    other.save_copy(&path).unwrap();
    assert_eq!(fs::read(copy_of(&path)).unwrap(), before);
    fs::remove_file(copy_of(&path)).unwrap();
    other.save_copy(&path).unwrap();
    assert!(!copy_of(&path).exists());
    // The copy of a file that was replaced since.
    fs::write(copy_of(&path), &before).unwrap();
    other.save(&path, &NoProgress).unwrap();
    assert_eq!(load(&path), other);
    other.save_copy(&path).unwrap();
    assert_ne!(fs::read(copy_of(&path)).unwrap(), before);
    assert_eq!(load(&path), other);
    // A damaged file has no copy.
    fs::write(&path, b"{}").unwrap();
    fs::remove_file(copy_of(&path)).unwrap();
    other.save_copy(&path).unwrap();
    assert!(!copy_of(&path).exists());
}

struct Stopped;

impl Progress for Stopped {
    fn report(&self, _: Stage, _: u64, _: u64) {}

    fn should_stop(&self) -> bool {
        true
    }
}

#[test]
fn reading_a_copy_can_be_stopped() {
    let (_folder, path, _) = saved();
    let found = Manifest::load(&path, None, &Stopped);
    assert!(matches!(found, Err(Error::Interrupted)), "{found:?}");
}
