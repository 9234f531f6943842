//! Running work in several threads.

use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// The calling thread of [`run_workers`] polls at least this often: well below
/// the 200 ms within which Ctrl-C has to take effect.
const POLL: Duration = Duration::from_millis(25);

/// Runs `work` in at most `workers` threads until all of them return.
///
/// The calling thread passes what the workers send to `receive`, and calls
/// `poll` after each message and at least every 25 ms. If not a single thread
/// can be started, it does the work itself before that.
pub(crate) fn run_workers<T: Send>(
    workers: usize,
    work: impl Fn(&Sender<T>) + Sync,
    mut receive: impl FnMut(T),
    mut poll: impl FnMut(),
) {
    let work = &work;
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        for started in 0..workers {
            let its_sender = sender.clone();
            let worker = move || work(&its_sender);
            if thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                // The threads that did start can do all of the work.
                if started == 0 {
                    work(&sender);
                }
                break;
            }
        }
        drop(sender); // now the channel closes when the last worker returns
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(message) => receive(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            poll();
        }
    })
}

/// Runs both functions, in parallel if another thread can be started.
pub(crate) fn both<A, B: Send>(here: impl FnOnce() -> A, there: impl Fn() -> B + Sync) -> (A, B) {
    let there = &there;
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, there);
        let here = here();
        let found = thread.ok().and_then(|thread| thread.join().ok());
        (here, found.unwrap_or_else(there))
    })
}
