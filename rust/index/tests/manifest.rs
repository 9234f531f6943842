//! The manifest file: what is written is read back, and nothing else is.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use distill_index::{
    scan, seal, Content, Error, Manifest, Options, Pack, Segment, Silent, FORMAT_VERSION,
};
use proptest::prelude::*;
use smallvec::smallvec;

/// A manifest with `names` as files, each with a content of `rows` rows.
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
    let scan = scan(&manifest, folder.path(), &options, &Silent).unwrap();
    manifest.apply(&scan);
    manifest.add_pack(pack("a.safetensors", 1000)).unwrap();
    for (index, todo) in scan.todo.iter().enumerate() {
        let is_skipped = index % 5 == 4;
        let segment = Segment {
            pack: 0,
            first: index as u64 * 2,
            rows: 2,
        };
        let content = Content {
            segments: if is_skipped {
                smallvec![]
            } else {
                smallvec![segment]
            },
            silent: index as u64,
            sums,
            skipped: is_skipped.then(|| reason.to_owned()),
        };
        manifest.set_content(todo.hash, content).unwrap();
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

    /// Past the checksum, where the parser is. What is accepted obeys the rules:
    /// its own text is accepted too.
    #[test]
    fn damage_never_panics(
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
fn every_flipped_byte_is_noticed() {
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
fn sealed_lies_are_refused() {
    let good = String::from_utf8(body(&sample()).to_vec()).unwrap();
    let version = format!("\"version\":{FORMAT_VERSION}");
    let lies = [
        (version.as_str(), "\"version\":2", "version"),
        ("\"header\":{", "\"header\":[{", "header"),
        ("\"name\":\"a", "\"name\":\"../a", "plain file name"),
        ("\"name\":\"a", "\"name\":\".a", "plain file name"),
        ("\"rows\":1000", "\"rows\":1", "not inside"),
        ("\"rows\":1000", "\"rows\":18446744073709551616", "64 bits"),
        ("\"rows\":1000", "\"rows\":18446744073709551615", "exceed"),
        ("[0,0,2]", "[7,0,2]", "names pack"),
        ("[0,0,2]", "[0,18446744073709551615,2]", "not inside"),
        ("[0,0,2]", "[0,1,2]", "belongs to two"),
        ("[0,0,2]", "[0,0,1]", "rows has"),
        ("1e+300", "1e+999", "finite"),
        ("\"a.wav\"", "\"/a.wav\"", "absolute"),
        ("\"a.wav\"", "\"b/../a.wav\"", "component"),
        ("\"a.wav\"", "\"a//b.wav\"", "component"),
        ("\"a.wav\"", "\"a\\u0000.wav\"", "NUL"),
        ("\"a.wav\"", "\"c\"", "in order"),
        ("\"a.wav\"", "\"\\ud800\"", "surrogate"),
        ("\"content_hash\":\"", "\"content_hash\":\"f", "hash"),
    ];
    for (truth, lie, reason) in lies {
        assert!(good.contains(truth), "{truth} is not in\n{good}");
        let sealed = seal(good.replacen(truth, lie, 1).into_bytes());
        match Manifest::from_bytes(&sealed) {
            Err(Error::Manifest(said)) => assert!(said.contains(reason), "{lie}: {said}"),
            other => panic!("{lie}: {other:?}"),
        }
    }
}

#[test]
fn a_header_that_is_too_large_is_neither_written_nor_read() {
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
        Err(Error::Manifest(said)) => assert!(said.contains("exceeds"), "{said}"),
        other => panic!("{other:?}"),
    }
}

/// A file of holes costs its author nothing, and would cost us its size.
#[test]
fn a_file_of_holes_is_refused_before_it_is_read() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    let file = fs::File::create(&path).unwrap();
    // Larger than most memories: to read it would fail in another way.
    let size = 15 << 30;
    file.set_len(size).unwrap();
    let said = |path| match Manifest::load(path) {
        Err(Error::Manifest(said)) => said,
        other => panic!("{other:?}"),
    };
    assert!(said(&path).contains("no checksum"));
    let seal = seal(Vec::new());
    file.write_all_at(&seal, size - seal.len() as u64).unwrap();
    assert!(said(&path).contains("holes"));
    // A small one is as full as the filesystem tells or does not.
    Manifest::from_bytes(&sample())
        .unwrap()
        .save(&path)
        .unwrap();
    assert!(Manifest::load(&path).is_ok());
    fs::write(&path, b"}\n").unwrap();
    assert!(said(&path).contains("no checksum"));
}

#[test]
fn a_save_replaces_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    let manifest = Manifest::from_bytes(&sample()).unwrap();
    Manifest::default().save(&path).unwrap();
    manifest.save(&path).unwrap();
    assert_eq!(Manifest::load(&path).unwrap(), manifest);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("no/manifest.json");
    assert!(matches!(manifest.save(&nowhere), Err(Error::Io { .. })));
    assert!(matches!(
        Manifest::load(folder.path()),
        Err(Error::Manifest(_))
    ));
}

#[test]
fn dead_packs_go_and_indices_follow() {
    let names = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
    let mut manifest = manifest(&names.into(), [0.0; 5], "");
    let hash = manifest.files()[0].content.unwrap();
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

/// Two contents of three rows each in one pack, and a file for each.
fn two_contents() -> Manifest {
    let names = [b"a.wav".to_vec(), b"b.wav".to_vec()];
    let mut manifest = Manifest::default();
    manifest.add_pack(pack("one", 6)).unwrap();
    for (index, _) in names.iter().enumerate() {
        let content = Content {
            segments: smallvec![Segment {
                pack: 0,
                first: 3 * index as u64,
                rows: 3,
            }],
            ..Content::default()
        };
        manifest.set_content([index as u8; 32], content).unwrap();
    }
    manifest
}

#[test]
fn dropping_rows_forgets_the_contents_that_have_them_and_no_others() {
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
fn a_content_moves_with_all_its_rows_or_not_at_all() {
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
