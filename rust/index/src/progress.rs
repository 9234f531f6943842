//! How a long operation reports its progress and learns that it should stop.

/// The stage of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading or writing a large table of a cache: counted in bytes; the total of what is
    /// written is unknown (0).
    Cache,
    /// Looking for files: counted in files, the total is unknown (0).
    Scan,
    /// Hashing: counted in bytes.
    Hash,
}

impl Stage {
    /// The name of the stage in progress callbacks.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Cache => "cache",
            Stage::Scan => "scan",
            Stage::Hash => "hash",
        }
    }
}

/// Receives the progress of a long operation and can stop it.
///
/// Both methods are called often, and only from the thread that started the
/// operation: an implementation need not be `Sync`, and should limit its own
/// rate of output.
pub trait Progress {
    /// Reports `current` units of `total`; `total` is 0 if it is unknown.
    fn report(&self, stage: Stage, current: u64, total: u64);

    /// Whether to stop with [`Error::Interrupted`](crate::Error::Interrupted).
    fn should_stop(&self) -> bool;
}

/// Reports nothing and never stops.
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _stage: Stage, _current: u64, _total: u64) {}

    fn should_stop(&self) -> bool {
        false
    }
}

/// Called by a worker with the number of units (files or bytes) done since the
/// last call. `false` means stop.
pub(crate) type Tick<'a> = &'a dyn Fn(u64) -> bool;
