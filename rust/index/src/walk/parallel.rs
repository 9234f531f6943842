//! A walk in several threads, which take one folder at a time from a queue.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::walker::{Rules, Walker};
use crate::progress::Tick;
use crate::threads::run_workers;
use crate::tree::Tree;
use crate::Result;

/// The folders still to visit.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    /// Files found that have not been reported yet.
    found: AtomicU64,
}

struct State {
    pending: Vec<Box<[u8]>>,
    /// Number of threads that are visiting a folder, and may find more folders.
    busy: usize,
}

/// Visits `folders` and everything below them. Only the calling thread calls
/// `tick`.
pub(super) fn walk_in_threads(
    rules: &Rules,
    folders: Vec<Box<[u8]>>,
    workers: usize,
    tick: Tick,
) -> Result<Vec<Tree>> {
    let queue = Queue {
        state: Mutex::new(State {
            pending: folders,
            busy: 0,
        }),
        changed: Condvar::new(),
        stop: AtomicBool::new(false),
        found: AtomicU64::new(0),
    };
    let mut results: Vec<Result<Tree>> = Vec::new();
    run_workers(
        workers,
        // The receiver only goes away after the last worker.
        |sender| drop(sender.send(work(rules, &queue))),
        |result| results.push(result),
        || {
            if !tick(queue.found.swap(0, Relaxed)) {
                queue.stop();
            }
        },
    );
    results.into_iter().collect()
}

fn work(rules: &Rules, queue: &Queue) -> Result<Tree> {
    let tick = |new| {
        queue.found.fetch_add(new, Relaxed);
        !queue.stop.load(Relaxed)
    };
    let mut walker = Walker::new(rules, &tick);
    while let Some(folder) = queue.take() {
        let visited = walker.visit(folder, false);
        queue.finish(&mut walker.pending);
        if visited.is_err() || walker.tree.is_away() {
            queue.stop();
            visited?;
        }
    }
    Ok(walker.tree)
}

impl Queue {
    /// Waits for the next folder. `None` once there will be no more.
    fn take(&self) -> Option<Box<[u8]>> {
        let mut state = self.state();
        loop {
            if self.stop.load(Relaxed) {
                return None;
            }
            if let Some(folder) = state.pending.pop() {
                state.busy += 1;
                return Some(folder);
            }
            if state.busy == 0 {
                return None;
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the visit of a folder that contained `folders`.
    fn finish(&self, folders: &mut Vec<Box<[u8]>>) {
        let mut state = self.state();
        state.busy -= 1;
        let wakes = !folders.is_empty() || state.busy == 0;
        state.pending.append(folders);
        if wakes {
            self.changed.notify_all();
        }
    }

    fn stop(&self) {
        // With the lock, no thread is between its check of `stop` and its wait.
        let _state = self.state();
        self.stop.store(true, Relaxed);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
