//! Work that is divided among threads.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Calls `work` for each share, on as many threads as there are shares, including
/// the calling one; on fewer if the system does not start as many.
pub(crate) fn in_threads<T: Send>(
    shares: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) + Sync,
) {
    let count = shares.len();
    let shares = Mutex::new(shares);
    let take = || {
        let shares = shares.lock();
        shares.unwrap_or_else(PoisonError::into_inner).next()
    };
    let work = || {
        while let Some(share) = take() {
            work(share);
        }
    };
    thread::scope(|scope| {
        for _ in 1..count {
            // The threads that did start, at least this one, can do all of the work.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}
