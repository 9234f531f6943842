//! Progress and Ctrl-C for operations that run without the GIL.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use distill_index::{Stage, Watch};
use pyo3::prelude::*;

/// How often Python is asked. Ctrl-C has to be answered within 200 ms, and each
/// question costs a turn of the GIL.
const INTERVAL: Duration = Duration::from_millis(50);

/// Asks Python for signals and tells it of progress, each at most once per
/// [`INTERVAL`]. What Python raises stops the operation.
pub(crate) struct PythonWatch {
    progress: Option<Py<PyAny>>,
    state: Mutex<State>,
}

struct State {
    asked: Instant,
    /// The last progress that Python was not told of.
    untold: Option<(Stage, u64, u64)>,
    raised: Option<PyErr>,
}

impl PythonWatch {
    pub(crate) fn new(progress: Option<Py<PyAny>>) -> Self {
        let state = Mutex::new(State {
            asked: Instant::now(),
            untold: None,
            raised: None,
        });
        PythonWatch { progress, state }
    }

    /// Ends the watch: tells the last progress, and gives what Python raised.
    pub(crate) fn finish(self, py: Python) -> PyResult<()> {
        let mut state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match state.raised.take() {
            Some(error) => Err(error),
            None => tell(py, self.progress.as_ref(), state.untold),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self) -> bool {
        let mut state = self.state();
        let is_due = state.asked.elapsed() >= INTERVAL;
        if is_due {
            state.asked = Instant::now();
        }
        is_due
    }
}

impl Watch for PythonWatch {
    fn progress(&self, stage: Stage, current: u64, total: u64) {
        self.state().untold = Some((stage, current, total));
    }

    fn should_stop(&self) -> bool {
        if self.state().raised.is_some() {
            return true;
        }
        if !self.is_due() {
            return false;
        }
        let untold = self.state().untold.take();
        // The lock is free while Python runs: it may take its time.
        let asked = Python::attach(|py| {
            py.check_signals()?;
            tell(py, self.progress.as_ref(), untold)
        });
        let raised = asked.err();
        let stops = raised.is_some();
        self.state().raised = raised;
        stops
    }
}

fn tell(
    py: Python,
    progress: Option<&Py<PyAny>>,
    untold: Option<(Stage, u64, u64)>,
) -> PyResult<()> {
    if let (Some(progress), Some((stage, current, total))) = (progress, untold) {
        progress.call1(py, (stage.name(), current, total))?;
    }
    Ok(())
}
