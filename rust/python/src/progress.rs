//! Progress and Ctrl-C for operations that run without the GIL.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use distill_index::{Progress, Stage};
use pyo3::prelude::*;

/// Python is called at most this often. Ctrl-C has to take effect within 200 ms,
/// and each call has to wait for the GIL.
const INTERVAL: Duration = Duration::from_millis(50);

/// Passes progress to a Python callback and checks for signals, each at most once
/// per [`INTERVAL`]. An exception in either stops the operation.
pub(crate) struct PythonProgress {
    callback: Option<Py<PyAny>>,
    state: Mutex<State>,
}

type Report = (Stage, u64, u64);

struct State {
    called: Instant,
    /// The last report, if it was not passed to the callback yet.
    pending: Option<Report>,
    raised: Option<PyErr>,
}

impl PythonProgress {
    pub(crate) fn new(callback: Option<Py<PyAny>>) -> Self {
        let state = Mutex::new(State {
            called: Instant::now(),
            pending: None,
            raised: None,
        });
        PythonProgress { callback, state }
    }

    /// Passes on the last report, or raises the exception that stopped the
    /// operation.
    pub(crate) fn finish(self, py: Python) -> PyResult<()> {
        let mut state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match state.raised.take() {
            Some(error) => Err(error),
            None => call(py, self.callback.as_ref(), state.pending),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self) -> bool {
        let mut state = self.state();
        let is_due = state.called.elapsed() >= INTERVAL;
        if is_due {
            state.called = Instant::now();
        }
        is_due
    }
}

impl Progress for PythonProgress {
    fn report(&self, stage: Stage, current: u64, total: u64) {
        self.state().pending = Some((stage, current, total));
    }

    fn should_stop(&self) -> bool {
        if self.state().raised.is_some() {
            return true;
        }
        if !self.is_due() {
            return false;
        }
        let pending = self.state().pending.take();
        // Without the lock: Python code may take any time.
        let called = Python::attach(|py| {
            py.check_signals()?;
            call(py, self.callback.as_ref(), pending)
        });
        let raised = called.err();
        let stops = raised.is_some();
        self.state().raised = raised;
        stops
    }
}

fn call(py: Python, callback: Option<&Py<PyAny>>, report: Option<Report>) -> PyResult<()> {
    if let (Some(callback), Some((stage, current, total))) = (callback, report) {
        callback.call1(py, (stage.name(), current, total))?;
    }
    Ok(())
}
