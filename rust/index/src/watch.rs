//! How a long operation tells of its progress and learns that it should stop.

/// What an operation is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Walking: counted in files, total unknown (0).
    Scan,
    /// Hashing: counted in bytes.
    Hash,
}

impl Stage {
    /// The stage's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Scan => "scan",
            Stage::Hash => "hash",
        }
    }
}

/// Watches a long operation. Called often, and always from the thread that
/// started the operation, so that an implementation may be bound to it; it
/// should limit its own rate.
pub trait Watch {
    /// Work went on; `total` is 0 while it is unknown.
    fn progress(&self, stage: Stage, current: u64, total: u64);

    /// Whether to give up with [`Error::Interrupted`](crate::Error::Interrupted).
    fn should_stop(&self) -> bool;
}

/// Tells nobody and never stops.
pub struct Silent;

impl Watch for Silent {
    fn progress(&self, _stage: Stage, _current: u64, _total: u64) {}

    fn should_stop(&self) -> bool {
        false
    }
}
