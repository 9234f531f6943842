//! A scan gives the same whatever threads do it, and whichever way it takes.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use distill_index::{scan, Content, Error, Manifest, Options, Scan, Silent, Stage, Watch};

fn options(workers: usize) -> Options {
    Options {
        extensions: vec!["wav".into()],
        workers,
        ..Options::default()
    }
}

/// Folders in folders, and names that sort between a folder's and its files'.
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
    scan(manifest, root, &options(workers), &Silent).unwrap()
}

#[test]
fn threads_change_nothing() {
    let root = tempfile::tempdir().unwrap();
    let count = make_tree(root.path());
    let alone = scanned(&Manifest::default(), root.path(), 1);
    assert_eq!(alone.added.len(), count);
    assert!(alone.added.is_sorted());
    for workers in [2, 3, 8] {
        for _ in 0..20 {
            assert_eq!(scanned(&Manifest::default(), root.path(), workers), alone);
        }
    }
}

#[test]
fn a_scan_of_nothing_new_is_what_the_long_way_finds() {
    let root = tempfile::tempdir().unwrap();
    let count = make_tree(root.path()) as u64;
    std::thread::sleep(Duration::from_millis(2100));
    let mut manifest = Manifest::default();
    let first = scanned(&manifest, root.path(), 2);
    manifest.apply(&first);
    for (index, todo) in first.todo.iter().enumerate() {
        let skipped = (index % 7 == 0).then(|| format!("reason {index}"));
        let content = Content {
            skipped,
            ..Content::default()
        };
        manifest.set_content(todo.hash, content).unwrap();
    }
    let same = scanned(&manifest, root.path(), 2);
    assert_eq!(
        (same.counts.unchanged, same.n_files, same.total_bytes),
        (count, count, first.total_bytes)
    );
    assert_eq!(same.skipped.len(), (count as usize).div_ceil(7));
    let mut again = manifest.clone();
    assert!(!again.apply(&same));
    // A file more, and the other way is taken; all else must be as before.
    fs::write(root.path().join("a/new.wav"), "OggSnew").unwrap();
    let more = scanned(&manifest, root.path(), 2);
    assert_eq!(more.counts.unchanged, same.counts.unchanged);
    assert_eq!(more.skipped, same.skipped);
    assert_eq!(more.added.len(), 1);
    fs::remove_file(root.path().join("a/new.wav")).unwrap();
    fs::write(root.path().join("a/0.wav"), "OggSother").unwrap();
    assert_eq!(scanned(&manifest, root.path(), 2).changed.len(), 1);
    // What is not computed yet is work to do, however unchanged its file.
    again.clear_contents();
    assert_eq!(
        scanned(&again, root.path(), 2).todo.len() as u64,
        count,
        "each content is its own"
    );
}

struct StopsAt(usize, AtomicUsize);

impl Watch for StopsAt {
    fn progress(&self, _: Stage, _: u64, _: u64) {}

    fn should_stop(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) >= self.0
    }
}

#[test]
fn a_walk_in_threads_can_be_stopped() {
    let root = tempfile::tempdir().unwrap();
    make_tree(root.path());
    for polls in 0..3 {
        let watch = StopsAt(polls, AtomicUsize::new(0));
        let stopped = scan(&Manifest::default(), root.path(), &options(3), &watch);
        assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    }
}
