//! The manifest file: a reader accepts what was written, and rejects anything else.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;

use distill_index::{
    scan, seal, Content, Error, FileTable, Manifest, NoProgress, Options, Pack, Progress, Segment,
    SkipReason, Stage, StatKey, FORMAT_VERSION,
};
use proptest::prelude::*;
use smallvec::smallvec;

/// A manifest of the files `names`. Each two of them have the same content, every
/// fifth content is skipped for `reason`, and the others have two rows; every third
/// of these is used in part, for `reason` too.
fn manifest(names: &BTreeSet<Vec<u8>>, sums: [f64; 5], reason: &str) -> Manifest {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    for (index, name) in names.iter().enumerate() {
        let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
        fs::write(path, format!("OggS{}", index / 2)).unwrap();
    }
    let options = Options {
        files: Some(names.iter().cloned().collect()),
        ..Options::default()
    };
    let mut manifest = Manifest::default();
    let scan = scan(&manifest, folder.path(), &options, &NoProgress).unwrap();
    manifest.apply(&scan);
    manifest.add_pack(pack("a.safetensors", 1000)).unwrap();
    for (index, todo) in scan.todo().enumerate() {
        let is_skipped = index % 5 == 4;
        let segment = Segment {
            pack: 0,
            first: index as u64 * 2,
            rows: 2,
        };
        let content = Content {
            segments: (!is_skipped).then_some(segment).into_iter().collect(),
            silent: index as u64,
            sums,
            skipped: is_skipped.then(|| SkipReason::new("other".into(), reason.to_owned())),
            silent_runs: match index > 9 && index % 2 == 1 {
                true => vec![(1, 2), (9, index as u64 - 2)],
                false => vec![],
            },
            partial: (!is_skipped && index % 3 == 1)
                .then(|| SkipReason::new("cut-short".into(), reason.to_owned())),
        };
        manifest.set_content(todo.hash.unwrap(), content).unwrap();
    }
    manifest
}

fn pack(name: &str, rows: u64) -> Pack {
    Pack {
        name: name.into(),
        rows,
        bytes: 7,
        mtime_ns: -7,
        ctime_ns: 1 << 60,
        checksum: "0f".repeat(32),
        backend: "cpu".into(),
    }
}

fn sample() -> Vec<u8> {
    let names = [b"a.wav".to_vec(), b"\xff\xfe.wav".to_vec(), b"c".to_vec()];
    let mut manifest = manifest(&names.into(), [1.0, 0.1, -2.5e-300, 3.0, 1e300], "bad");
    manifest
        .set_header("{\"a\": [1,\n2], \"b\": \"\\udcff\"}")
        .unwrap();
    manifest.to_bytes().unwrap()
}

/// The file without its last line.
fn body(bytes: &[u8]) -> &[u8] {
    let tail = "\"checksum\":\"\"}\n".len() + 64;
    &bytes[..bytes.len() - tail]
}

fn names() -> impl Strategy<Value = BTreeSet<Vec<u8>>> {
    let byte = prop_oneof![1..=46u8, 48..=255u8];
    let name = proptest::collection::vec(byte, 1..12);
    let name = name.prop_filter("a name", |n| n != b"." && n != b"..");
    proptest::collection::btree_set(name, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_manifest_survives_a_round_trip(
        names in names(),
        sums in proptest::array::uniform5(proptest::num::f64::NORMAL | proptest::num::f64::ZERO),
        reason: String,
    ) {
        let manifest = manifest(&names, sums, &reason);
        let bytes = manifest.to_bytes().unwrap();
        let read = Manifest::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&read, &manifest);
        prop_assert_eq!(read.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Manifest::from_bytes(&bytes);
        let _ = Manifest::from_bytes(&seal(bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Damaged text with a valid checksum, which the parser must handle. If it is
    /// accepted, it follows the rules: the manifest can be written and read again.
    #[test]
    fn damaged_text_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4usize), 1..4),
        splice in "[0-9]{0,25}|\\[|\"|\\\\u[dD][0-9a-fA-F]{3}|null|-|\\.\\./|\n",
    ) {
        let mut text = body(&sample()).to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 if text.len() > 1 => { text.remove(at); }
                2 => text.truncate(at.max(1)),
                _ => { text.splice(at..at, splice.bytes()); }
            }
        }
        if let Ok(manifest) = Manifest::from_bytes(&seal(text)) {
            let again = manifest.to_bytes().unwrap();
            prop_assert_eq!(Manifest::from_bytes(&again).unwrap(), manifest);
        }
    }
}

#[test]
fn every_changed_byte_and_every_truncation_is_detected() {
    let good = sample();
    assert!(Manifest::from_bytes(&good).is_ok());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(Manifest::from_bytes(&bad).is_err(), "byte {at}");
        assert!(Manifest::from_bytes(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn invalid_records_with_a_valid_checksum_are_rejected() {
    let good = String::from_utf8(body(&sample()).to_vec()).unwrap();
    let version = format!("\"version\":{FORMAT_VERSION}");
    let cases = [
        (version.as_str(), "\"version\":0", "version"),
        ("\"header\":{", "\"header\":[{", "header"),
        ("\"name\":\"a", "\"name\":\"../a", "plain file name"),
        ("\"name\":\"a", "\"name\":\".a", "plain file name"),
        ("\"rows\":1000", "\"rows\":1", "not inside"),
        ("\"rows\":1000", "\"rows\":18446744073709551616", "64 bits"),
        ("\"rows\":1000", "\"rows\":18446744073709551615", "exceed"),
        (
            "[0,0,2]",
            "[7,0,2]",
            "refers to pack 7, but there are 1 packs",
        ),
        ("[0,0,2]", "[0,18446744073709551615,2]", "not inside"),
        ("[0,0,2]", "[0,1,2]", "belongs to two"),
        (
            "[0,0,2]",
            "[0,0,1]",
            "rows=2 of a content differs from the 1 rows",
        ),
        ("1e+300", "1e+999", "finite"),
        ("\"a.wav\"", "\"/a.wav\"", "absolute"),
        ("\"a.wav\"", "\"b/../a.wav\"", "component"),
        ("\"a.wav\"", "\"a//b.wav\"", "component"),
        ("\"a.wav\"", "\"a\\u0000.wav\"", "NUL"),
        ("\"a.wav\"", "\"c\"", "in order"),
        ("\"a.wav\"", "\"\\ud800\"", "surrogate"),
        ("\"content_hash\":\"", "\"content_hash\":\"f", "hash"),
    ];
    for (valid, invalid, reason) in cases {
        assert!(good.contains(valid), "{valid} is not in\n{good}");
        let sealed = seal(good.replacen(valid, invalid, 1).into_bytes());
        match Manifest::from_bytes(&sealed) {
            Err(Error::Manifest(error)) => assert!(error.contains(reason), "{invalid}: {error}"),
            other => panic!("{invalid}: {other:?}"),
        }
    }
}

/// A file of a later version is not damaged. Without a valid checksum it is.
#[test]
fn a_later_version_is_told_from_damage() {
    let text = String::from_utf8(body(&sample()).to_vec()).unwrap();
    let version = format!("\"version\":{FORMAT_VERSION}");
    for later in [
        (FORMAT_VERSION + 1).to_string(),
        "18446744073709551999".into(),
    ] {
        let text = text.replacen(&version, &format!("\"version\":{later}"), 1);
        // Whatever follows the version may look different there.
        for text in [text.clone(), text.replace("\"header\"", "\"titles\"")] {
            let sealed = seal(text.into_bytes());
            let is_newer = |found| matches!(found, Err(Error::Newer { .. }));
            assert!(is_newer(Manifest::from_bytes(&sealed)));
            assert!(matches!(
                FileTable::from_bytes(&sealed),
                Err(Error::Newer { .. })
            ));
            let damaged = Manifest::from_bytes(&sealed[..sealed.len() - 1]);
            assert!(matches!(damaged, Err(Error::Manifest(_))));
        }
    }
}

/// Version 1 had no `selected`, and is otherwise the same.
#[test]
fn the_version_before_is_read() {
    let sample = sample();
    let text = String::from_utf8(body(&sample).to_vec()).unwrap();
    let before = text.replacen("\"version\":3", "\"version\":1", 1);
    assert_ne!(before, text);
    let read = Manifest::from_bytes(&seal(before.into_bytes())).unwrap();
    assert_eq!(read, Manifest::from_bytes(&sample).unwrap());
}

#[test]
fn a_table_of_files_survives_a_round_trip_and_detects_damage() {
    let manifest = Manifest::from_bytes(&sample()).unwrap();
    let table = FileTable::of(manifest.files());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files.json");
    table.save(&path).unwrap();
    assert_eq!(FileTable::load(&path, &NoProgress).unwrap(), table);
    assert_eq!(table.files(), manifest.files());
    let good = table.to_bytes();
    assert_eq!(fs::read(&path).unwrap(), good);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(FileTable::from_bytes(&bad).is_err(), "byte {at}");
        assert!(FileTable::from_bytes(&good[..at]).is_err(), "cut at {at}");
    }
}

/// A manifest of more than a megabyte, read in several blocks and two threads.
fn large(header: &str, count: u64) -> Manifest {
    let mut manifest = Manifest::default();
    manifest.set_header(header).unwrap();
    for number in 0..count {
        let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
        manifest.set_content(hash, Content::default()).unwrap();
        let key = StatKey {
            size: number,
            mtime_ns: 1,
            ctime_ns: 2,
            inode: number,
        };
        manifest.add_file(format!("{number:05}.wav").as_bytes(), key, false, hash);
    }
    manifest
}

/// Remembers what was reported, and stops after some reports.
struct Reports {
    seen: RefCell<Vec<(Stage, u64, u64)>>,
    most: usize,
}

impl Progress for Reports {
    fn report(&self, stage: Stage, current: u64, total: u64) {
        self.seen.borrow_mut().push((stage, current, total));
    }

    fn should_stop(&self) -> bool {
        self.seen.borrow().len() > self.most
    }
}

#[test]
fn silent_runs_are_kept_if_they_are_in_order_and_as_many_as_are_silent() {
    let mut manifest = Manifest::from_bytes(&sample()).unwrap();
    let hash = *manifest.kept().hashes.first().unwrap();
    let with = |silent, runs: &[(u64, u64)]| Content {
        silent,
        silent_runs: runs.to_vec(),
        ..manifest.content(&hash).unwrap().into_owned()
    };
    let good = with(5, &[(0, 2), (7, 3)]);
    let bad = [
        with(4, &[(0, 2), (7, 3)]),
        with(5, &[(7, 3), (0, 2)]),
        with(5, &[(0, 2), (2, 3)]),
        with(2, &[(0, 2), (7, 0)]),
        with(5, &[(u64::MAX, 5)]),
    ];
    for content in bad {
        let found = manifest.set_content(hash, content);
        assert!(matches!(found, Err(Error::Invalid(_))), "{found:?}");
    }
    manifest.set_content(hash, good.clone()).unwrap();
    let again = Manifest::from_bytes(&manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(*again.content(&hash).unwrap(), good);
    assert_eq!(again, manifest);
}

#[test]
fn a_large_manifest_shares_its_files_reports_progress_and_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let [path, table_path] = ["manifest.json", "files.json"].map(|name| folder.path().join(name));
    let manifest = large("{}", 12_000);
    manifest.save(&path, &NoProgress).unwrap();
    let table = FileTable::of(manifest.files());
    table.save(&table_path).unwrap();
    let known = FileTable::load(&table_path, &NoProgress).unwrap();
    let load = |known, most| {
        let seen = RefCell::default();
        let reports = Reports { seen, most };
        let loaded = Manifest::load(&path, known, &reports);
        (loaded, reports.seen.into_inner())
    };
    let (loaded, seen) = load(Some(&known), usize::MAX);
    let loaded = loaded.unwrap();
    assert_eq!(loaded, manifest);
    // Shared, and not equal only.
    assert!(std::ptr::eq(loaded.files(), known.files()));
    let size = body(&fs::read(&path).unwrap()).len() as u64;
    // The thread that parses may be ahead of the first report.
    let is_of_size = |&(stage, _, total): &_| (stage, total) == (Stage::Cache, size);
    assert!(!seen.is_empty() && seen.iter().all(is_of_size), "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1));
    assert!(matches!(load(None, 1).0, Err(Error::Interrupted)));

    // A table of other files, or of which a hash was set since, is not shared.
    let mut others = known.clone();
    let file = b"new.wav";
    assert!(!others.set_hash(file, [1; 32]));
    assert!(!std::ptr::eq(
        load(Some(&others), 99).0.unwrap().files(),
        others.files()
    ));
    assert_eq!(load(None, usize::MAX).0.unwrap(), manifest);
    let mut fewer = manifest.clone();
    fewer.add_file(
        file,
        StatKey {
            size: 1,
            mtime_ns: 1,
            ctime_ns: 1,
            inode: 1,
        },
        false,
        [1; 32],
    );
    fewer.set_content([1; 32], Content::default()).unwrap();
    fewer.save(&path, &NoProgress).unwrap();
    let loaded = load(Some(&known), usize::MAX).0.unwrap();
    assert_eq!(loaded, fewer);
    assert_eq!(
        (loaded.files().len(), known.files().len()),
        (12_001, 12_000)
    );
}

/// The line is searched for in blocks of a megabyte.
#[test]
fn the_table_of_files_is_found_wherever_it_begins() {
    const BLOCK: usize = 1 << 20;
    const LINE: &[u8] = b"\n\"files\":[\n";
    let find = |bytes: &[u8]| bytes.windows(LINE.len()).position(|part| part == LINE);
    let header = |pad: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(pad));
    let mut manifest = large(&header(0), 6500);
    let start = find(&manifest.to_bytes().unwrap()).unwrap();
    let pad = BLOCK.checked_sub(start + 20).unwrap();
    assert!(pad < 60_000, "{pad}");
    for more in 0..24 {
        manifest.set_header(&header(pad + more)).unwrap();
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(find(&bytes).unwrap(), BLOCK - 20 + more);
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest);
    }
}

#[test]
fn a_too_large_header_can_be_neither_set_nor_read() {
    let largest = format!("{{\"a\":\"{}\"}}", "x".repeat((64 << 10) - 8));
    let larger = format!("{}x\"}}", &largest[..largest.len() - 2]);
    let mut manifest = Manifest::from_bytes(&sample()).unwrap();
    manifest.set_header(&largest).unwrap();
    assert!(matches!(
        manifest.set_header(&larger),
        Err(Error::Invalid(_))
    ));
    let bytes = manifest.to_bytes().unwrap();
    assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest);
    let text = String::from_utf8(body(&bytes).to_vec()).unwrap();
    let text = text.replace(&largest, &larger);
    match Manifest::from_bytes(&seal(text.into_bytes())) {
        Err(Error::Manifest(error)) => assert!(error.contains("exceeds"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// A sparse file takes no space on the disk, and would take all of the memory.
#[test]
fn a_sparse_file_is_rejected_before_it_is_read() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    let file = fs::File::create(&path).unwrap();
    // Larger than most memories: reading it would fail with another error.
    let size = 15 << 30;
    file.set_len(size).unwrap();
    let error = |path| match Manifest::load(path, None, &NoProgress) {
        Err(Error::Manifest(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(error(&path).contains("no checksum"));
    let seal = seal(Vec::new());
    file.write_all_at(&seal, size - seal.len() as u64).unwrap();
    assert!(error(&path).contains("sparse"));
    // A small file is accepted, however many blocks the filesystem reports.
    Manifest::from_bytes(&sample())
        .unwrap()
        .save(&path, &NoProgress)
        .unwrap();
    assert!(Manifest::load(&path, None, &NoProgress).is_ok());
    fs::write(&path, b"}\n").unwrap();
    assert!(error(&path).contains("no checksum"));
}

#[test]
fn saving_replaces_the_file_and_leaves_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    let manifest = Manifest::from_bytes(&sample()).unwrap();
    Manifest::default().save(&path, &NoProgress).unwrap();
    manifest.save(&path, &NoProgress).unwrap();
    assert_eq!(Manifest::load(&path, None, &NoProgress).unwrap(), manifest);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("no/manifest.json");
    assert!(matches!(
        manifest.save(&nowhere, &NoProgress),
        Err(Error::Io { .. })
    ));
    assert!(matches!(
        Manifest::load(folder.path(), None, &NoProgress),
        Err(Error::Manifest(_))
    ));
}

#[test]
fn packs_without_live_rows_are_removed_and_indices_adjusted() {
    let names = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
    let mut manifest = manifest(&names.into(), [0.0; 5], "");
    let hash = manifest.files().get(0).content.unwrap();
    let live = |pack| Content {
        segments: smallvec![Segment {
            pack,
            first: 3,
            rows: 4,
        }],
        ..Content::default()
    };
    for name in ["b", "c", "d"] {
        manifest.add_pack(pack(name, 10)).unwrap();
    }
    manifest.set_content(hash, live(2)).unwrap();
    manifest.set_content([9; 32], live(3)).unwrap(); // no file has it
    assert!(manifest.add_pack(pack("d", 1)).is_err());
    manifest.drop_dead();
    let names: Vec<_> = manifest.packs().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a.safetensors", "c"]);
    assert_eq!(manifest.content(&hash).unwrap().segments[0].pack, 1);
    assert!(manifest.content(&[9; 32]).is_none());
    assert_eq!(manifest.totals().dead_rows, 1010 - 4 - 2);
}

/// Two contents of three rows each in one pack.
fn two_contents() -> Manifest {
    let mut manifest = Manifest::default();
    manifest.add_pack(pack("one", 6)).unwrap();
    for index in 0..2 {
        let content = Content {
            segments: smallvec![Segment {
                pack: 0,
                first: 3 * u64::from(index),
                rows: 3,
            }],
            ..Content::default()
        };
        manifest.set_content([index; 32], content).unwrap();
    }
    manifest
}

#[test]
fn dropping_rows_removes_exactly_the_contents_that_have_them() {
    for row in 0..6 {
        let mut manifest = two_contents();
        assert_eq!(manifest.drop_rows("one", &[row]), 1);
        assert_eq!(manifest.content(&[0; 32]).is_some(), row >= 3);
        assert_eq!(manifest.content(&[1; 32]).is_some(), row < 3);
    }
    let mut manifest = two_contents();
    assert_eq!(manifest.drop_rows("one", &[6, 99]), 0);
    assert_eq!(manifest.drop_rows("other", &[0]), 0);
    assert_eq!(manifest.drop_rows("one", &[5, 0]), 2);
    assert!(manifest.packs().is_empty());
}

#[test]
fn a_content_can_only_move_with_all_its_rows() {
    let mut manifest = two_contents();
    let to = manifest.add_pack(pack("two", 3)).unwrap();
    let place = |rows| Segment {
        pack: to,
        first: 0,
        rows,
    };
    assert!(manifest
        .move_content(&[0; 32], smallvec![place(2)])
        .is_err());
    assert!(manifest
        .move_content(&[0; 32], smallvec![place(4)])
        .is_err());
    assert!(manifest
        .move_content(&[7; 32], smallvec![place(3)])
        .is_err());
    manifest
        .move_content(&[0; 32], smallvec![place(3)])
        .unwrap();
    assert_eq!(*manifest.content(&[0; 32]).unwrap().segments, [place(3)]);
    assert!(manifest.set_pack_stamps("two", 5, 6));
    assert!(!manifest.set_pack_stamps("three", 5, 6));
    let read = Manifest::from_bytes(&manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(read, manifest);
    assert_eq!((read.packs()[1].mtime_ns, read.packs()[1].ctime_ns), (5, 6));
}

fn content(pack: u64, first: u64, rows: u64) -> Content {
    Content {
        segments: smallvec![Segment { pack, first, rows }],
        sums: [rows as f64, 1.0, 2.0, 3.0, 4.0],
        ..Content::default()
    }
}

#[test]
fn a_part_adds_what_is_missing_once() {
    let key = |size| StatKey {
        size,
        mtime_ns: 1,
        ctime_ns: 1,
        inode: 7,
    };
    let (one, two, three, skipped) = ([1; 32], [2; 32], [3; 32], [4; 32]);
    let reason = SkipReason::new("other".into(), "was refused".into());
    let mut whole = Manifest::default();
    whole.add_pack(pack("a", 4)).unwrap();
    whole.set_content(one, content(0, 0, 2)).unwrap();
    whole.add_file(b"one", key(1), false, one);
    let unusable = Content {
        skipped: Some(reason),
        ..Content::default()
    };
    whole.set_content(skipped, unusable.clone()).unwrap();
    whole.add_file(b"skipped", key(4), false, skipped);

    // Its first pack is one that the manifest does not have, so the numbers of packs differ.
    let mut part = Manifest::default();
    part.add_pack(pack("b", 9)).unwrap();
    part.add_pack(pack("a", 4)).unwrap();
    part.add_pack(pack("c", 2)).unwrap();
    part.set_content(one, content(2, 0, 2)).unwrap();
    part.set_content(two, content(0, 2, 3)).unwrap();
    part.set_content(three, content(1, 2, 2)).unwrap();
    part.set_content(skipped, content(0, 5, 4)).unwrap();
    part.add_file(b"two", key(2), false, two);
    part.add_file(b"three", key(3), false, three);
    part.add_file(b"one", key(100), false, two);

    assert!(whole.adopt(&part).unwrap());
    let segment = |hash| whole.content(&hash).unwrap().segments[0];
    let at = |pack, first, rows| Segment { pack, first, rows };
    assert_eq!(segment(one), at(0, 0, 2), "the rows that were there stay");
    assert_eq!(segment(two), at(1, 2, 3));
    assert_eq!(segment(three), at(0, 2, 2));
    assert_eq!(segment(skipped), at(1, 5, 4), "rows replace a refusal");
    let names: Vec<_> = whole.packs().iter().map(|pack| &*pack.name).collect();
    assert_eq!(names, ["a", "b"], "not c, of which nothing is taken");
    // The file has changed since, so it counts for what the part says of it.
    assert_eq!(whole.totals().files, 4);
    assert_eq!(whole.totals().rows, 3 + 2 + 4);
    assert!(
        !whole.adopt(&part).unwrap(),
        "the second time nothing changes"
    );
    let read = Manifest::from_bytes(&whole.to_bytes().unwrap()).unwrap();
    assert_eq!(read, whole);

    // A refusal does not replace rows, and a pack cannot have other rows than before.
    let mut refused = Manifest::default();
    refused.set_content(two, unusable).unwrap();
    assert!(!whole.adopt(&refused).unwrap());
    let mut other = Manifest::default();
    other.add_pack(pack("a", 5)).unwrap();
    assert!(matches!(whole.adopt(&other), Err(Error::Invalid(_))));
}
