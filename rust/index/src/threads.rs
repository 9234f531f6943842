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

/// Runs both functions, in parallel if another thread can be started. Calls `poll` at least
/// every 25 ms after the first one has ended.
pub(crate) fn both<A, B: Send>(
    here: impl FnOnce() -> A,
    there: impl Fn() -> B + Sync,
    mut poll: impl FnMut(),
) -> (A, B) {
    let there = &there;
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        let work = move || {
            // The receiver only goes away after this thread.
            let _ = sender.send(there());
        };
        // Without another thread the sender is gone, and there is nothing to wait for.
        let _thread = thread::Builder::new().spawn_scoped(scope, work);
        let here = here();
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(found) => return (here, found),
                Err(RecvTimeoutError::Timeout) => poll(),
                Err(RecvTimeoutError::Disconnected) => return (here, there()),
            }
        }
    })
}
