"""Whether the locks of a file system reach all machines that share it, by its type and mount options."""

from __future__ import annotations

import re
import sys
from collections.abc import Set
from pathlib import Path

_OF_ONE_MACHINE = frozenset(
    [
        *("apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfs", "hfsplus", "jfs"),
        *("msdos", "nilfs2", "ntfs", "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "vfat", "xfs", "zfs"),
    ]
)
# Their servers know the locks of all clients.
_WITH_SHARED_LOCKS = frozenset(["ceph", "gfs2", "gpfs", "nfs", "nfs4", "ocfs2"])
_LOCAL_LOCKS = frozenset({"local_lock=flock", "local_lock=all", "nolock"})


def locks_reach_all_machines(descriptor: int) -> bool:
    """Whether a lock (flock) on an open file is known to keep out all processes that can open it, on any machine.

    Only Linux tells; elsewhere the answer is True.
    """
    if sys.platform != "linux":
        return True
    mount = mount_of(descriptor)
    return mount is not None and has_shared_locks(*mount)


def has_shared_locks(kind: str, options: Set[str]) -> bool:
    """Whether a file system of this type, mounted with these options, is known to show its locks to all machines."""
    if kind == "lustre":
        return "flock" in options
    if kind in _WITH_SHARED_LOCKS:
        return not options & _LOCAL_LOCKS
    return kind in _OF_ONE_MACHINE


def mount_of(descriptor: int) -> tuple[str, Set[str]] | None:
    """Return type and options of the file system that an open file is on; None if the system does not tell."""
    try:
        about = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return None
    # The number of the mount, unlike a path, is right in containers and under mounts that cover others.
    number = re.search(r"^mnt_id:\s*(\d+)$", about, re.MULTILINE)
    return parse_mountinfo(mounts, number[1]) if number else None


def parse_mountinfo(text: str, number: str) -> tuple[str, Set[str]] | None:
    """Return type and options of the mount with a number, from the text of /proc/PID/mountinfo; None if not there."""
    for line in text.splitlines():
        place, separator, file_system = line.partition(" - ")
        fields, (kind, *_, super_options) = place.split(" "), file_system.split(" ") if separator else ["", ""]
        if fields[0] == number:
            return kind, frozenset([*fields[5].split(","), *super_options.split(",")])
    return None
