//! The result of a scan does not depend on the number of threads, nor on the
//! shortcut for unchanged folders.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use distill_index::{
    scan, Content, Error, FileTable, Hashing, Manifest, NoProgress, Options, Progress, Scan,
    SkipReason, Stage,
};

fn options(workers: usize) -> Options {
    Options {
        extensions: vec!["wav".into()],
        workers,
        ..Options::default()
    }
}

/// Creates nested folders with files whose names sort between a folder and its
/// files. Returns the number of files.
fn make_tree(root: &Path) -> usize {
    let mut count = 0;
    for path in ["", "a", "a/b", "a/b/c", "a-b", "a.b", "z/y/x/w/v", "empty"] {
        let folder = root.join(path);
        fs::create_dir_all(&folder).unwrap();
        for name in ["0", "a", "b-", "b.", "zz"] {
            if !path.ends_with("empty") {
                fs::write(
                    folder.join(format!("{name}.wav")),
                    format!("OggS{path}{name}"),
                )
                .unwrap();
                count += 1;
            }
        }
    }
    count
}

fn scanned(manifest: &Manifest, root: &Path, workers: usize) -> Scan {
    scan(manifest, root, &options(workers), &NoProgress).unwrap()
}

#[test]
fn the_number_of_threads_does_not_change_the_result() {
    let root = tempfile::tempdir().unwrap();
    let count = make_tree(root.path());
    let alone = scanned(&Manifest::default(), root.path(), 1);
    assert_eq!(alone.added.len(), count);
    assert!(alone.added.iter().is_sorted());
    for workers in [2, 3, 8] {
        for _ in 0..20 {
            assert_eq!(scanned(&Manifest::default(), root.path(), workers), alone);
        }
    }
}

#[test]
fn the_shortcut_for_unchanged_folders_gives_the_same_result() {
    let root = tempfile::tempdir().unwrap();
    let count = make_tree(root.path()) as u64;
    std::thread::sleep(Duration::from_millis(2100));
    let mut manifest = Manifest::default();
    let first = scanned(&manifest, root.path(), 2);
    manifest.apply(&first);
    for (index, todo) in first.todo().enumerate() {
        let skipped =
            (index % 7 == 0).then(|| SkipReason::new("other".into(), format!("reason {index}")));
        let content = Content {
            skipped,
            ..Content::default()
        };
        manifest.set_content(todo.hash.unwrap(), content).unwrap();
    }
    let same = scanned(&manifest, root.path(), 2);
    assert_eq!(
        (same.counts.unchanged, same.n_files, same.total_bytes),
        (count, count, first.total_bytes)
    );
    assert_eq!(same.skipped.len(), (count as usize).div_ceil(7));
    let mut again = manifest.clone();
    assert!(!again.apply(&same));
    // With another file the shortcut is not taken; everything else is the same.
    fs::write(root.path().join("a/new.wav"), "OggSnew").unwrap();
    let more = scanned(&manifest, root.path(), 2);
    assert_eq!(more.counts.unchanged, same.counts.unchanged);
    assert_eq!(more.skipped, same.skipped);
    assert_eq!(more.added.len(), 1);
    fs::remove_file(root.path().join("a/new.wav")).unwrap();
    fs::write(root.path().join("a/0.wav"), "OggSother").unwrap();
    assert_eq!(scanned(&manifest, root.path(), 2).changed.len(), 1);
    // A content that is not computed is to do, though its file is unchanged.
    again = Manifest::default();
    again.apply(&same);
    assert_eq!(
        scanned(&again, root.path(), 2).n_todo() as u64,
        count,
        "all contents differ"
    );
}

#[test]
fn only_files_that_share_their_size_are_hashed_if_that_is_requested() {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &str| fs::write(root.path().join(name), bytes).unwrap();
    put("one.wav", "OggS1");
    put("two.wav", "OggS2");
    put("long.wav", "OggS longer");
    let options = Options {
        hashing: Hashing::SameSize,
        ..options(2)
    };
    let lazily = |manifest: &Manifest| scan(manifest, root.path(), &options, &NoProgress).unwrap();
    let hashed = |scan: &Scan| -> Vec<String> {
        let todo = scan.todo().filter(|todo| todo.hash.is_some());
        todo.map(|todo| String::from_utf8_lossy(todo.path).into())
            .collect()
    };
    let none = Options {
        hashing: Hashing::None,
        ..options.clone()
    };
    let unhashed = scan(&Manifest::default(), root.path(), &none, &NoProgress).unwrap();
    assert_eq!((unhashed.n_todo(), hashed(&unhashed).len()), (3, 0));
    let first = lazily(&Manifest::default());
    assert_eq!((first.counts.added, first.n_todo()), (3, 3));
    assert_eq!(hashed(&first), ["one.wav", "two.wav"]);

    // Files that are not hashed are not saved, and neither are those not computed.
    let (mut manifest, mut table) = (Manifest::default(), FileTable::default());
    assert!(manifest.apply(&first) && table.apply(&first));
    assert_eq!(
        FileTable::from_bytes(&table.to_bytes())
            .unwrap()
            .files()
            .len(),
        2
    );
    let hash = *blake3::hash(b"OggS longer").as_bytes();
    assert!(manifest.set_hash(b"long.wav", hash) && table.set_hash(b"long.wav", hash));
    assert!(!manifest.set_hash(b"long.wav", hash) && !table.set_hash(b"none.wav", hash));
    assert_eq!(FileTable::from_bytes(&table.to_bytes()).unwrap(), table);
    manifest.set_content(hash, Content::default()).unwrap();
    let saved = Manifest::from_bytes(&manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(saved.files().len(), 1);

    // A known file that is racy, renamed or changed to its old size is hashed; one of
    // another size is not.
    fs::rename(root.path().join("long.wav"), root.path().join("moved.wav")).unwrap();
    assert_eq!(lazily(&saved).counts.renamed, 1);
    put("moved.wav", "OggS other!");
    assert!(hashed(&lazily(&saved)).contains(&"moved.wav".into()));
    put("moved.wav", "OggS much longer");
    let last = lazily(&saved);
    assert_eq!(hashed(&last), ["one.wav", "two.wav"]);
    assert_eq!((last.counts.added, last.counts.removed), (3, 1));
}

#[test]
fn folders_that_distill_wrote_are_left_out_whatever_the_number_of_threads() {
    let root = tempfile::tempdir().unwrap();
    let count = make_tree(root.path());
    let plain = scanned(&Manifest::default(), root.path(), 1);
    assert!(plain.left_out.is_empty());
    for (mark, left_out) in [("a/b/.distill-output", "a/b"), ("z/.distill-output", "z")] {
        fs::write(root.path().join(mark), "").unwrap();
        let scan = scanned(&Manifest::default(), root.path(), 1);
        assert!(scan.left_out.contains(&Box::from(left_out.as_bytes())));
    }
    for name in ["run.json", "config.toml", "previews/a.wav"] {
        let path = root.path().join("a-b").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "OggS").unwrap();
    }
    let alone = scanned(&Manifest::default(), root.path(), 1);
    let expected = ["a-b/previews", "a/b", "z"];
    assert!(alone
        .left_out
        .iter()
        .map(|path| &**path)
        .eq(expected.map(str::as_bytes)));
    // a/b, a/b/c and z/y/x/w/v have five files each.
    assert_eq!(alone.added.len(), count - 15);
    let plain: Vec<&[u8]> = plain.added.iter().collect();
    assert!(alone.added.iter().all(|path| plain.contains(&path)));
    for workers in [2, 3, 8] {
        for _ in 0..20 {
            assert_eq!(scanned(&Manifest::default(), root.path(), workers), alone);
        }
    }
}

/// Stops after some polls, which it counts.
struct StopAfter(usize, AtomicUsize);

impl Progress for StopAfter {
    fn report(&self, _: Stage, _: u64, _: u64) {}

    fn should_stop(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) >= self.0
    }
}

#[test]
fn a_walk_in_threads_can_be_stopped() {
    let root = tempfile::tempdir().unwrap();
    make_tree(root.path());
    for polls in 0..3 {
        let progress = StopAfter(polls, AtomicUsize::new(0));
        let stopped = scan(&Manifest::default(), root.path(), &options(3), &progress);
        assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    }
}

/// A scan of a list keeps what is known of other files, without looking at them,
/// in the manifest and in the table that manifests share.
#[test]
fn a_list_of_files_leaves_the_others_known_and_unselected() {
    let root = tempfile::tempdir().unwrap();
    let count = make_tree(root.path());
    let mut manifest = Manifest::default();
    let mut table = FileTable::default();
    let whole = scanned(&manifest, root.path(), 2);
    assert!(manifest.apply(&whole) && table.apply(&whole));
    assert!(!table.apply(&whole));
    let listed = Options {
        files: Some(vec![b"a/0.wav".to_vec(), b"gone.wav".to_vec()]),
        ..options(2)
    };
    let part = scan(&manifest, root.path(), &listed, &NoProgress).unwrap();
    assert_eq!((part.n_files, part.counts.unchanged), (1, 1));
    assert_eq!((part.counts.removed, part.removed.len()), (0, 0));
    assert!(manifest.apply(&part));
    assert!(!table.apply(&part));
    assert_eq!(manifest.files().len(), count);
    let selected = manifest.files().iter().filter(|file| file.selected);
    let paths: Vec<_> = selected.map(|file| file.path).collect();
    assert_eq!(paths, [b"a/0.wav"]);
    assert_eq!(manifest.totals().files, 1);
    // A new manifest of a list leaves the other files in the table.
    let mut other = Manifest::default();
    fs::write(root.path().join("new.wav"), "OggSnew").unwrap();
    let listed = Options {
        files: Some(vec![b"new.wav".to_vec()]),
        ..listed
    };
    let part = scan(&other, root.path(), &listed, &NoProgress).unwrap();
    other.apply(&part);
    assert_eq!(other.files().len(), 1);
    assert!(table.apply(&part));
    assert_eq!(table.files().len(), count + 1);
    assert!(table.files().iter().is_sorted_by(|a, b| a.path < b.path));
    assert!(table.files().iter().all(|file| file.selected));
}

/// Hashes in the table are used where stamps fit, and nowhere else.
#[test]
fn known_hashes_are_used_only_for_unchanged_files() {
    let root = tempfile::tempdir().unwrap();
    make_tree(root.path());
    std::thread::sleep(Duration::from_millis(2100));
    let empty = Manifest::default();
    let mut known = FileTable::default();
    let first = scanned(&empty, root.path(), 2);
    known.apply(&first);
    let with_table = Options {
        known,
        ..options(2)
    };
    let again = scan(&empty, root.path(), &with_table, &NoProgress).unwrap();
    assert_eq!(again, first);
    fs::write(root.path().join("a/0.wav"), "OggSother").unwrap();
    let changed = scan(&empty, root.path(), &with_table, &NoProgress).unwrap();
    assert_eq!(changed, scanned(&empty, root.path(), 2));
    assert_ne!(changed, first);
}
