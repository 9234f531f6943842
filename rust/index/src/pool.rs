//! Hashing many files.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::entry::Root;
use crate::hash::{Hasher, Outcome};
use crate::watch::{Stage, Watch};
use crate::{Error, Result};

/// How long the calling thread waits for news before it asks its watch again:
/// well under the 200 ms in which Ctrl-C is to be answered.
pub(crate) const POLL: Duration = Duration::from_millis(25);

/// Below this a second thread costs more than it brings.
const BYTES_PER_WORKER: u64 = 4 << 20;
const FILES_PER_WORKER: usize = 64;

/// A file to hash.
pub(crate) struct Job {
    pub(crate) path: Box<[u8]>,
    pub(crate) linked: bool,
    pub(crate) size: u64,
}

/// What the workers and the calling thread share.
struct Shared<'a> {
    root: &'a Root,
    max_bytes: u64,
    jobs: &'a [Job],
    next: AtomicUsize,
    done_bytes: AtomicU64,
    stop: AtomicBool,
}

/// Hashes all `jobs`; the outcomes come in their order. The calling thread only
/// watches, because a watch may be bound to it.
pub(crate) fn hash_all(
    root: &Root,
    max_bytes: u64,
    jobs: &[Job],
    workers: usize,
    watch: &dyn Watch,
) -> Result<Vec<Outcome>> {
    let total = jobs
        .iter()
        .fold(0, |sum: u64, job| sum.saturating_add(job.size));
    let shared = Shared {
        root,
        max_bytes,
        jobs,
        next: AtomicUsize::new(0),
        done_bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let mut outcomes = vec![Outcome::Stopped; jobs.len()];
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        for started in 0..worker_count(workers, jobs.len(), total) {
            let sender = sender.clone();
            let shared = &shared;
            let worker = move || work(shared, &sender);
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, worker) {
                // Those that did start do all the work; none cannot.
                if started == 0 {
                    return Err(Error::io(&root.path, error));
                }
                break;
            }
        }
        drop(sender); // the channel closes with the last worker
        loop {
            match receiver.recv_timeout(POLL) {
                Ok((index, outcome)) => outcomes[index] = outcome,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            watch.progress(
                Stage::Hash,
                shared.done_bytes.load(Relaxed).min(total),
                total,
            );
            if watch.should_stop() {
                shared.stop.store(true, Relaxed);
            }
        }
    })?;
    match shared.stop.load(Relaxed) {
        true => Err(Error::Interrupted),
        false => Ok(outcomes),
    }
}

fn worker_count(workers: usize, files: usize, bytes: u64) -> usize {
    let by_bytes = usize::try_from(bytes / BYTES_PER_WORKER).unwrap_or(usize::MAX);
    let useful = by_bytes.max(files / FILES_PER_WORKER).max(1);
    workers.max(1).min(useful).min(files)
}

fn work(shared: &Shared, sender: &Sender<(usize, Outcome)>) {
    let mut hasher = Hasher::new(shared.root, shared.max_bytes);
    let tick = |bytes| {
        shared.done_bytes.fetch_add(bytes, Relaxed);
        !shared.stop.load(Relaxed)
    };
    while !shared.stop.load(Relaxed) {
        let index = shared.next.fetch_add(1, Relaxed);
        let Some(job) = shared.jobs.get(index) else {
            return;
        };
        let outcome = hasher.hash(&job.path, job.linked, &tick);
        if sender.send((index, outcome)).is_err() {
            return;
        }
    }
}

/// Runs both, at the same time if another thread is to be had.
pub(crate) fn both<A, B: Send>(here: impl FnOnce() -> A, there: impl Fn() -> B + Sync) -> (A, B) {
    let there = &there;
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, there);
        let here = here();
        let found = thread.ok().and_then(|thread| thread.join().ok());
        (here, found.unwrap_or_else(there))
    })
}
