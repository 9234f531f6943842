//! The precision of each filesystem in a dataset.

use std::sync::OnceLock;

use rustix::fd::AsFd;
use rustix::fs::{fstat, OFlags, Stat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::stat::Precision;

/// Number of filesystems besides the root's whose precision is remembered. Others
/// are looked up each time.
const REMEMBERED: usize = 32;

/// The filesystem of the root, and those that are mounted below it or linked to,
/// by device number.
pub(crate) struct Filesystems {
    root: (u64, Precision),
    /// Filled from the front and never changed: threads need no lock.
    others: [OnceLock<(u64, Precision)>; REMEMBERED],
}

impl Filesystems {
    pub(crate) fn below(root: impl AsFd) -> Result<Self, Errno> {
        Ok(Filesystems {
            root: (device(&fstat(&root)?), Precision::of(&root)),
            others: [const { OnceLock::new() }; REMEMBERED],
        })
    }

    /// The precision of the filesystem of a stat result. An unknown filesystem
    /// is looked up with `look_up`; if that returns `None`, it is coarse.
    pub(crate) fn precision(
        &self,
        stat: &Stat,
        look_up: impl FnOnce() -> Option<Precision>,
    ) -> Precision {
        let device = device(stat);
        if device == self.root.0 {
            return self.root.1; // the usual case
        }
        let mut known = self.others.iter().map_while(OnceLock::get);
        if let Some((_, precision)) = known.find(|(known, _)| *known == device) {
            return *precision;
        }
        let Some(precision) = look_up() else {
            return Precision::Coarse;
        };
        // Two threads may both store it, which is harmless.
        let mut slots = self.others.iter();
        slots.any(|slot| slot.set((device, precision)).is_ok());
        precision
    }
}

/// The precision of the filesystem of `name`, if `name` is still on the device of
/// `stat`. Opens it without permission to read.
#[cfg(target_os = "linux")]
pub(crate) fn precision_at(
    at: impl AsFd,
    name: impl Arg,
    stat: &Stat,
    nofollow: OFlags,
) -> Option<Precision> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | nofollow;
    let file = rustix::fs::openat(at, name, flags, rustix::fs::Mode::empty()).ok()?;
    let is_there = fstat(&file).is_ok_and(|found| device(&found) == device(stat));
    is_there.then(|| Precision::of(&file))
}

/// `None`: on this system it would have to be opened for reading.
#[cfg(not(target_os = "linux"))]
pub(crate) fn precision_at(_: impl AsFd, _: impl Arg, _: &Stat, _: OFlags) -> Option<Precision> {
    None
}

#[allow(clippy::unnecessary_cast)] // the type differs between systems
fn device(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn on_device(device: u64) -> Stat {
        let mut stat = fstat(std::fs::File::open(".").unwrap()).unwrap();
        stat.st_dev = device as _;
        stat
    }

    #[test]
    fn each_filesystem_is_looked_up_once() {
        let folder = std::fs::File::open(".").unwrap();
        let filesystems = Filesystems::below(&folder).unwrap();
        let of_root = filesystems.precision(&fstat(&folder).unwrap(), || unreachable!());
        assert_eq!(of_root, Precision::of(&folder));

        let look_ups = Cell::new(0);
        let precision = |device, found| {
            filesystems.precision(&on_device(device), || {
                look_ups.set(look_ups.get() + 1);
                found
            })
        };
        let far = |n| u64::MAX - n;
        // A failed look-up is coarse, and not remembered.
        assert_eq!(precision(far(0), None), Precision::Coarse);
        assert_eq!(look_ups.get(), 1);
        for n in 0..2 * REMEMBERED as u64 {
            let found = [Precision::Exact, Precision::Coarse][n as usize % 2];
            for _ in 0..3 {
                assert_eq!(precision(far(n), Some(found)), found, "{n}");
            }
        }
        // The second half is not remembered, and looked up each time.
        assert_eq!(look_ups.get(), 1 + REMEMBERED + 3 * REMEMBERED);
        assert_eq!(precision(far(1), None), Precision::Coarse);
        assert_eq!(precision(far(0), None), Precision::Exact);
    }
}
