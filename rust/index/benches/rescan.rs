//! The cost of scanning an unchanged dataset again, compared with the minimum
//! for any program: getdents, and one fstatat per file.
//!
//! `cargo bench -p distill-index [-- FILES]`; default 100 000 files.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use distill_index::{scan, Content, Manifest, NoProgress, Options, Pack, Segment};
use rustix::fs::{open, openat, statat, AtFlags, Mode, OFlags, RawDir};
use smallvec::smallvec;

const FOLDERS: usize = 1000;
const ROUNDS: usize = 9;

type Case<'a> = (&'static str, Box<dyn FnMut() + 'a>);
type Times = (&'static str, Vec<f64>);

fn main() {
    let files = std::env::args().find_map(|arg| arg.parse().ok());
    let files = files.unwrap_or(100_000);
    let root = tempfile::tempdir().unwrap();
    let audio = root.path().join("audio");
    make_tree(&audio, files);
    // Files that changed in the last two seconds would be hashed again.
    std::thread::sleep(Duration::from_millis(2200));
    let options = Options {
        extensions: vec!["wav".into()],
        workers: 2,
        ..Options::default()
    };
    let saved = root.path().join("manifest.json");
    manifest_of(&audio, &options)
        .save(&saved, &NoProgress)
        .unwrap();
    let bytes = fs::read(&saved).unwrap();
    assert_nothing_changed(&audio, &options, &saved, files);
    let parsed = Manifest::load(&saved, None, &NoProgress).unwrap();
    let copied = root.path().join("copied.json");
    fs::copy(&saved, &copied).unwrap();
    parsed.save_copy(&copied).unwrap();
    assert!(copied.with_extension("bin").exists());
    assert!(Manifest::load(&copied, None, &NoProgress).unwrap() == parsed);
    assert_nothing_changed(&audio, &options, &copied, files);
    let git_dirs = ["git", "best"].map(|name| root.path().join(name));
    let git = git_repositories(&audio, &git_dirs);

    let raw = root.path().join("raw");
    let manifest = Manifest::load(&saved, None, &NoProgress).unwrap();
    let mut copy = manifest.clone();
    let unchanged = scan(&manifest, &audio, &options, &NoProgress).unwrap();
    let mut cases: Vec<Case> = vec![
        (
            "floor: getdents + fstatat",
            Box::new(|| floor(&audio, files)),
        ),
        (
            "load + scan",
            Box::new(|| {
                let manifest = Manifest::load(&copied, None, &NoProgress).unwrap();
                black_box(scan(&manifest, &audio, &options, &NoProgress).unwrap());
            }),
        ),
        (
            "load, JSON and copy",
            Box::new(|| {
                drop(black_box(
                    Manifest::load(&copied, None, &NoProgress).unwrap(),
                ))
            }),
        ),
        (
            "load, JSON alone",
            Box::new(|| {
                drop(black_box(
                    Manifest::load(&saved, None, &NoProgress).unwrap(),
                ))
            }),
        ),
        (
            "scan",
            Box::new(|| drop(scan(&manifest, &audio, &options, &NoProgress).unwrap())),
        ),
        (
            "apply",
            Box::new(|| {
                black_box(copy.apply(&unchanged));
            }),
        ),
        ("write + fsync + rename", Box::new(|| replace(&raw, &bytes))),
        (
            "save",
            Box::new(|| manifest.save(&saved, &NoProgress).unwrap()),
        ),
    ];
    if git {
        let [plain, best] = &git_dirs;
        cases.push(("git status", Box::new(|| git_status(&audio, plain))));
        cases.push(("git at its best", Box::new(|| git_status(&audio, best))));
    }
    let times = measure(&mut cases);
    report(&times, files, bytes.len());
}

fn make_tree(root: &Path, files: usize) {
    for folder in 0..FOLDERS {
        let path = root.join(format!("recordings-{folder:04}"));
        fs::create_dir_all(&path).unwrap();
        for file in (folder..files).step_by(FOLDERS) {
            fs::write(
                path.join(format!("take-{file:06}.wav")),
                format!("OggS{file}"),
            )
            .unwrap();
        }
    }
}

/// A manifest in which every content has rows.
fn manifest_of(root: &Path, options: &Options) -> Manifest {
    let mut manifest = Manifest::default();
    let found = scan(&manifest, root, options, &NoProgress).unwrap();
    manifest.apply(&found);
    let mut pack = 0;
    for (index, todo) in (0_u64..).zip(found.todo()) {
        if index % 1000 == 0 {
            let name = format!("{index:016x}.safetensors");
            pack = manifest
                .add_pack(Pack {
                    name,
                    rows: 4000,
                    bytes: 128 << 20,
                    mtime_ns: 0,
                    ctime_ns: 0,
                    checksum: "0f".repeat(32),
                    backend: "cpu".into(),
                })
                .unwrap();
        }
        let segment = Segment {
            pack,
            first: 4 * (index % 1000),
            rows: 4,
        };
        let sums = [1.0, 0.1, 0.2, 0.3, 0.4].map(|sum: f64| (index as f64 + sum).sqrt() * 1e4);
        let content = Content {
            segments: smallvec![segment],
            sums,
            ..Content::default()
        };
        manifest.set_content(todo.hash.unwrap(), content).unwrap();
    }
    manifest
}

fn assert_nothing_changed(root: &Path, options: &Options, saved: &Path, files: usize) {
    let manifest = Manifest::load(saved, None, &NoProgress).unwrap();
    let found = scan(&manifest, root, options, &NoProgress).unwrap();
    assert_eq!(found.counts.unchanged, files as u64);
    assert_eq!(found.counts.refreshed, 0);
    assert!(found.n_todo() == 0 && found.removed.is_empty() && found.faults.is_empty());
}

/// What every program must do: read each folder, and stat each file.
fn floor(root: &Path, files: usize) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = open(root, flags, Mode::empty()).unwrap();
    let mut outer = [MaybeUninit::uninit(); 1 << 15];
    let mut inner = [MaybeUninit::uninit(); 1 << 15];
    let mut seen = 0;
    let mut folders = RawDir::new(&top, &mut outer);
    while let Some(folder) = folders.next() {
        let folder = folder.unwrap();
        if folder.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        let fd = openat(&top, folder.file_name(), flags, Mode::empty()).unwrap();
        let mut entries = RawDir::new(&fd, &mut inner);
        while let Some(entry) = entries.next() {
            let entry = entry.unwrap();
            if !entry.file_name().to_bytes().starts_with(b".") {
                black_box(statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).unwrap());
                seen += 1;
            }
        }
    }
    assert_eq!(seen, files);
}

fn replace(path: &Path, bytes: &[u8]) {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    fs::rename(&temporary, path).unwrap();
}

fn git(root: &Path, dir: &Path, arguments: &[&str]) -> bool {
    let mut git = Command::new("git");
    git.args([
        "-c",
        "user.name=bench",
        "-c",
        "user.email=bench@example.org",
    ]);
    // Otherwise git would use our cores in the background.
    git.args(["-c", "maintenance.auto=false", "-c", "gc.auto=0"]);
    git.arg("--git-dir").arg(dir).arg("--work-tree").arg(root);
    let done = git.args(arguments).current_dir(root).output();
    done.is_ok_and(|done| done.status.success())
}

/// Commits the tree twice: with git's defaults, and as git is fastest without a daemon, which
/// is with a compact index and the folder times of what is not tracked. The first two calls of
/// `git status` update git's index. Returns whether git works.
fn git_repositories(root: &Path, dirs: &[PathBuf; 2]) -> bool {
    let status = ["status", "--porcelain"];
    let init = ["init", "-q"];
    let commit = ["commit", "-q", "-m", "all"];
    let trust_folders = ["config", "core.untrackedCache", "true"];
    let compact = ["update-index", "--index-version", "4", "--untracked-cache"];
    let plain: [&[&str]; 5] = [&init, &["add", "-A"], &commit, &status, &status];
    let best: [&[&str]; 4] = [&trust_folders, &compact, &status, &status];
    let [plain_dir, best_dir] = dirs;
    plain.iter().all(|step| git(root, plain_dir, step))
        && plain.iter().all(|step| git(root, best_dir, step))
        && best.iter().all(|step| git(root, best_dir, step))
}

fn git_status(root: &Path, dir: &Path) {
    assert!(git(root, dir, &["status", "--porcelain"]));
}

/// Sorted times of each case in seconds, one per round. The cases alternate.
fn measure(cases: &mut [Case]) -> Vec<Times> {
    let mut times: Vec<Times> = cases.iter().map(|(name, _)| (*name, vec![])).collect();
    for _ in 0..ROUNDS {
        for ((_, run), (_, times)) in cases.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run();
            times.push(start.elapsed().as_secs_f64());
        }
    }
    for (_, times) in &mut times {
        times.sort_by(f64::total_cmp);
    }
    times
}

fn report(times: &[Times], files: usize, bytes: usize) {
    let best = |name: &str| {
        times
            .iter()
            .find(|(case, _)| *case == name)
            .map(|(_, t)| t[0])
    };
    let ratio = |name, baseline| Some(best(name)? / best(baseline)?);
    println!(
        "{files} files in {FOLDERS} folders, manifest of {:.1} MB",
        bytes as f64 / 1e6
    );
    println!("{:<28}{:>10}{:>10}", "", "least ms", "median");
    for (name, times) in times {
        println!(
            "{name:<28}{:>10.1}{:>10.1}",
            times[0] * 1e3,
            times[ROUNDS / 2] * 1e3
        );
    }
    let ratios = [
        (
            "load_scan_to_floor",
            ratio("load + scan", "floor: getdents + fstatat"),
        ),
        (
            "load_scan_to_git_status",
            ratio("load + scan", "git status"),
        ),
        (
            "load_scan_to_git_at_its_best",
            ratio("load + scan", "git at its best"),
        ),
        ("save_to_write", ratio("save", "write + fsync + rename")),
    ];
    let ratios = ratios
        .iter()
        .filter_map(|(name, ratio)| Some(format!("\"{name}\": {:.2}", (*ratio)?)));
    println!("{{{}}}", ratios.collect::<Vec<_>>().join(", "));
}
