//! Work that is divided among threads.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Calls `work` on `threads` threads, including the calling one, with an iterator
/// from which all of them take their shares; on fewer if the system does not start
/// as many.
pub(crate) fn in_threads<T: Send>(
    threads: usize,
    shares: impl Iterator<Item = T> + Send,
    work: impl Fn(&mut dyn Iterator<Item = T>) + Sync,
) {
    let shares = Mutex::new(shares);
    let take = || {
        let shares = shares.lock();
        shares.unwrap_or_else(PoisonError::into_inner).next()
    };
    let work = || work(&mut std::iter::from_fn(take));
    thread::scope(|scope| {
        for _ in 1..threads {
            // The threads that did start, at least this one, can do all of the work.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}
