//! A walk shared out among threads, folder by folder.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{Rules, Tick, Walker};
use crate::entry::Tree;
use crate::pool::POLL;
use crate::{Error, Result};

/// The folders still to visit.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    /// Files found that the calling thread was not told of.
    found: AtomicU64,
}

struct State {
    pending: Vec<Box<[u8]>>,
    /// Threads that are in a folder, and may come upon more.
    busy: usize,
}

/// Visits `folders` and all that is below them. The calling thread only ticks,
/// because a watch may be bound to it.
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
    let results: Vec<Result<Tree>> = thread::scope(|scope| {
        let (sender, receiver) = channel();
        for started in 0..workers {
            let sender = sender.clone();
            let queue = &queue;
            // Nobody receives only if we gave up already.
            let worker = move || drop(sender.send(work(rules, queue)));
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, worker) {
                // Those that did start do all the work; none cannot.
                if started == 0 {
                    return vec![Err(Error::io(&rules.root.path, error))];
                }
                break;
            }
        }
        drop(sender); // the channel closes with the last worker
        let mut results = Vec::new();
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(result) => results.push(result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return results,
            }
            if !tick(queue.found.swap(0, Relaxed)) {
                queue.stop();
            }
        }
    });
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
        queue.give(&mut walker.pending);
        if visited.is_err() {
            queue.stop();
            visited?;
        }
    }
    Ok(walker.tree)
}

impl Queue {
    /// The next folder, once there is one; `None` once there will be none.
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

    /// Ends the visit of a folder, in which these were found.
    fn give(&self, folders: &mut Vec<Box<[u8]>>) {
        let mut state = self.state();
        state.busy -= 1;
        let is_news = !folders.is_empty() || state.busy == 0;
        state.pending.append(folders);
        if is_news {
            self.changed.notify_all();
        }
    }

    fn stop(&self) {
        let _state = self.state(); // nobody is between looking and waiting
        self.stop.store(true, Relaxed);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
