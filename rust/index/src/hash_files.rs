//! Hashing many files in several threads.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;

use crate::found::FoundFiles;
use crate::hasher::{Hasher, Outcome};
use crate::path::under;
use crate::progress::{Progress, Stage};
use crate::root::Root;
use crate::threads::run_workers;
use crate::{Error, Result};

/// With less work than this for each thread, another thread does not pay.
const BYTES_PER_WORKER: u64 = 4 << 20;
const FILES_PER_WORKER: usize = 64;

/// What the workers and the calling thread share.
struct Shared<'a> {
    root: &'a Root,
    max_bytes: u64,
    found: &'a FoundFiles,
    jobs: &'a [u32],
    next: AtomicUsize,
    done_bytes: AtomicU64,
    stop: AtomicBool,
}

/// Hashes some of the files found: those with the numbers `jobs`. Passes the index of each
/// in `jobs`, in any order, and its outcome to `receive`.
///
/// The calling thread only receives outcomes and reports progress, because `progress` is bound to it.
pub(crate) fn hash_all(
    root: &Root,
    found: &FoundFiles,
    jobs: &[u32],
    max_bytes: u64,
    workers: usize,
    progress: &dyn Progress,
    mut receive: impl FnMut(usize, Outcome),
) -> Result<()> {
    let sizes = jobs.iter().map(|&job| found.get(job as usize).key.size);
    let total = sizes.fold(0, u64::saturating_add);
    let shared = Shared {
        root,
        max_bytes,
        found,
        jobs,
        next: AtomicUsize::new(0),
        done_bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let mut away = None;
    run_workers(
        worker_count(workers, jobs.len(), total),
        |sender| work(&shared, sender),
        |(index, outcome)| match outcome {
            Outcome::Away(errno) => away = Some((index, errno)),
            outcome => receive(index, outcome),
        },
        || {
            let done = shared.done_bytes.load(Relaxed).min(total);
            progress.report(Stage::Hash, done, total);
            if progress.should_stop() {
                shared.stop.store(true, Relaxed);
            }
        },
    );
    if let Some((index, errno)) = away {
        let path = found.get(jobs[index] as usize).path;
        return Err(Error::io(under(&root.path, path), errno));
    }
    match shared.stop.load(Relaxed) {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

fn worker_count(workers: usize, files: usize, bytes: u64) -> usize {
    let by_bytes = usize::try_from(bytes / BYTES_PER_WORKER).unwrap_or(usize::MAX);
    let useful = by_bytes.max(files / FILES_PER_WORKER).max(1);
    workers.max(1).min(useful).min(files)
}

/// Takes jobs until there are none left, and sends the outcomes.
fn work(shared: &Shared, sender: &Sender<(usize, Outcome)>) {
    let mut hasher = Hasher::new(shared.root, shared.max_bytes);
    let tick = |bytes| {
        shared.done_bytes.fetch_add(bytes, Relaxed);
        !shared.stop.load(Relaxed)
    };
    while !shared.stop.load(Relaxed) {
        let index = shared.next.fetch_add(1, Relaxed);
        let Some(&job) = shared.jobs.get(index) else {
            return;
        };
        let file = shared.found.get(job as usize);
        let outcome = hasher.hash(file.path, file.linked, &tick);
        if matches!(outcome, Outcome::Away(_)) {
            shared.stop.store(true, Relaxed);
        }
        if sender.send((index, outcome)).is_err() {
            return;
        }
    }
}
