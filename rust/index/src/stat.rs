//! Size, times and inode number: how an unchanged file is recognised without
//! opening it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fd::AsFd;
use rustix::fs::{FileType, Stat};

const NS_PER_S: i64 = 1_000_000_000;

/// What identifies a file's content between scans. Only regular files have a
/// key, so the file type is not part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatKey {
    /// Size in bytes.
    pub size: u64,
    /// Modification time: last change of the content, ns since 1970. A program
    /// can set it.
    pub mtime_ns: i64,
    /// Change time: last change of the inode, ns since 1970. A program cannot
    /// set it.
    pub ctime_ns: i64,
    /// Inode number, or 0 if the filesystem's inode numbers are not stable.
    pub inode: u64,
}

/// How precise the times and inode numbers of a filesystem are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Stable inode numbers, and times finer than a second.
    Exact,
    /// Inode numbers may change at each mount, and times may be multiples of
    /// one or two seconds (FAT, network filesystems, unknown filesystems).
    Coarse,
}

impl Precision {
    /// The precision of the filesystem of `fd`; coarse if it is unknown.
    pub(crate) fn of(fd: impl AsFd) -> Self {
        match rustix::fs::fstatfs(fd) {
            Ok(statfs) if is_well_behaved(&statfs) => Precision::Exact,
            _ => Precision::Coarse,
        }
    }

    /// The key of a stat result, without the parts that are not reliable at this
    /// precision.
    pub(crate) fn key(self, stat: &Stat) -> StatKey {
        #[allow(clippy::unnecessary_cast)] // the types differ between systems
        let key = StatKey {
            size: stat.st_size as u64,
            mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            inode: stat.st_ino as u64,
        };
        match self {
            Precision::Exact => key,
            Precision::Coarse => StatKey {
                mtime_ns: whole_seconds(key.mtime_ns),
                ctime_ns: whole_seconds(key.ctime_ns),
                inode: 0,
                ..key
            },
        }
    }
}

/// From these times on a file is *racy*: another write within the same tick of
/// the filesystem's clock would leave its times as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RacyFrom {
    exact_ns: i64,
    coarse_ns: i64,
}

impl RacyFrom {
    /// The limits for a scan that starts now.
    pub(crate) fn now() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let before = |seconds| {
            let from = now.saturating_sub(Duration::from_secs(seconds));
            i64::try_from(from.as_nanos()).unwrap_or(i64::MAX)
        };
        RacyFrom {
            exact_ns: before(2),
            coarse_ns: before(4),
        }
    }
}

impl StatKey {
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let numbers = [
            self.size.to_le_bytes(),
            self.mtime_ns.to_le_bytes(),
            self.ctime_ns.to_le_bytes(),
            self.inode.to_le_bytes(),
        ];
        let places = bytes.chunks_exact_mut(8).zip(numbers);
        places.for_each(|(place, number)| place.copy_from_slice(&number));
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        let number = |at: usize| {
            let mut part = [0; 8];
            part.copy_from_slice(&bytes[at..at + 8]);
            part
        };
        StatKey {
            size: u64::from_le_bytes(number(0)),
            mtime_ns: i64::from_le_bytes(number(8)),
            ctime_ns: i64::from_le_bytes(number(16)),
            inode: u64::from_le_bytes(number(24)),
        }
    }

    /// Whether a later write could leave this key unchanged. Times in the future
    /// are always racy.
    pub(crate) fn is_racy(&self, from: RacyFrom) -> bool {
        // The inode number is 0 if, and only if, the precision is coarse.
        let from = match self.inode {
            0 => from.coarse_ns,
            _ => from.exact_ns,
        };
        self.mtime_ns.max(self.ctime_ns) >= from
    }
}

/// The file type of a stat result.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Saturates: btrfs can store times beyond 64 bits of nanoseconds.
fn nanoseconds(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(NS_PER_S).saturating_add(nanos)
}

fn whole_seconds(ns: i64) -> i64 {
    ns.div_euclid(NS_PER_S).saturating_mul(NS_PER_S)
}

#[cfg(target_os = "linux")]
fn is_well_behaved(statfs: &rustix::fs::StatFs) -> bool {
    const EXT: u64 = 0xEF53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683E;
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAYFS: u64 = 0x794C_7630;
    #[allow(clippy::unnecessary_cast)] // the type differs between architectures
    let magic = statfs.f_type as u64 & 0xFFFF_FFFF;
    matches!(magic, EXT | XFS | BTRFS | TMPFS | OVERLAYFS)
}

#[cfg(target_os = "macos")]
fn is_well_behaved(statfs: &rustix::fs::StatFs) -> bool {
    let name = statfs.f_fstypename.iter().map(|&c| c as u8);
    let name: Vec<u8> = name.take_while(|&c| c != 0).collect();
    name == b"apfs" || name == b"hfs"
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn is_well_behaved(_: &rustix::fs::StatFs) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_round_down_before_1970_too() {
        assert_eq!(whole_seconds(1_999_999_999), 1_000_000_000);
        assert_eq!(whole_seconds(-1), -1_000_000_000);
        assert_eq!(nanoseconds(i64::MAX, 1), i64::MAX);
        // The extremes must not overflow.
        assert!(whole_seconds(i64::MIN) <= i64::MIN + NS_PER_S);
    }

    #[test]
    fn times_from_the_limit_on_and_in_the_future_are_racy() {
        let from = RacyFrom {
            exact_ns: 10,
            coarse_ns: 5,
        };
        let is_racy = |inode, mtime_ns, ctime_ns| {
            let key = StatKey {
                inode,
                mtime_ns,
                ctime_ns,
                ..StatKey::default()
            };
            key.is_racy(from)
        };
        for (inode, first) in [(7, 10), (0, 5)] {
            assert!(is_racy(inode, first, 0));
            assert!(is_racy(inode, 0, first));
            assert!(is_racy(inode, i64::MAX, 0));
            assert!(!is_racy(inode, first - 1, first - 1));
        }
        let RacyFrom {
            exact_ns,
            coarse_ns,
        } = RacyFrom::now();
        assert_eq!(exact_ns - coarse_ns, 2 * NS_PER_S);
    }
}
