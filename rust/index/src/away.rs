//! Errors that say nothing about a file: it cannot be had at the moment.

use rustix::io::Errno;

/// Whether the disk, the server or the connection is away, or this process or
/// the system has no descriptors or memory left.
pub(crate) fn is_away(errno: Errno) -> bool {
    #[cfg(target_os = "linux")]
    if matches!(
        errno,
        Errno::REMOTEIO
            | Errno::NOLINK
            | Errno::NONET
            | Errno::COMM
            | Errno::REMCHG
            | Errno::NOMEDIUM
    ) {
        return true;
    }
    matches!(
        errno,
        Errno::IO
            | Errno::NODEV
            | Errno::STALE
            | Errno::NOTCONN
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NETRESET
            | Errno::TIMEDOUT
            | Errno::CONNABORTED
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::SHUTDOWN
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::NOBUFS
            | Errno::AGAIN
    )
}
