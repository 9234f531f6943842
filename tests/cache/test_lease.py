"""One writer at a time on storage that shows no locks to other machines. Each process is one on such a machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import mounts as mounting
import shared_storage
from distill.audio import load_cache_manifest
from distill.cache import mounts
from distill.cache.lock import CacheLock, LockedError
from distill.errors import StorageError
from distill.preprocess.pipeline import preprocess
from distill.preprocess.verify import verify
from sounds import SMALL, noise, rows_by_content, slot_of, training, write, write_dataset

SCRIPT = Path(shared_storage.__file__)


@contextmanager
def machine(name: str, lease_s: float, *arguments) -> Iterator[subprocess.Popen]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    paths = os.pathsep.join([str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "error", SCRIPT, name, str(lease_s), *map(str, arguments)]
    with subprocess.Popen(command, text=True, env=os.environ | {"PYTHONPATH": paths}, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def outcome(process: subprocess.Popen) -> dict:
    """Let it go on, and return what it says at its end."""
    output, errors = process.communicate("\n", timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def hear(process: subprocess.Popen, line: str) -> None:
    said = process.stdout.readline().strip()
    assert said == line, said or process.stderr.read()


def owner_of(cache_dir: Path) -> tuple[int, dict]:
    """The fencing number, and what the owner file says."""
    (path,) = cache_dir.glob("owner*")
    return int(re.fullmatch(r"owner-(\d+)\.json", path.name)[1]), json.loads(path.read_text())


@pytest.fixture
def here(monkeypatch):
    """Let this process be on such a machine."""
    return lambda **how: shared_storage.share(monkeypatch.setattr, **how)


@pytest.fixture
def dataset(tmp_path) -> Path:
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture(scope="module")
def whole(made):
    """The rows of a run on one machine, by content hash."""
    return rows_by_content(made / ".cache")


def assert_whole(cache_dir: Path, whole) -> None:
    found = rows_by_content(cache_dir)
    assert found.keys() == whole.keys()
    assert all(np.array_equal(found[content], rows) for content, rows in whole.items())


LINE = "40 27 0:52 / {} rw,relatime shared:9 - {} {} {}"


@pytest.mark.parametrize(
    ("kind", "options", "reach"),
    [
        ("ext4", "rw,discard", True),
        ("xfs", "rw,attr2,inode64", True),
        ("btrfs", "rw,subvolid=5,subvol=/", True),
        ("overlay", "rw,lowerdir=/a:/b,upperdir=/c,workdir=/d", True),
        ("tmpfs", "rw,size=4k", True),
        ("nfs4", "rw,vers=4.2,hard,local_lock=none,addr=10.0.0.1", True),
        ("nfs", "rw,vers=3,local_lock=none,addr=10.0.0.1", True),
        ("nfs", "rw,vers=3,nolock,local_lock=all,addr=10.0.0.1", False),
        ("nfs", "rw,vers=3,local_lock=flock,addr=10.0.0.1", False),
        ("nfs", "rw,vers=3,local_lock=posix,addr=10.0.0.1", True),
        ("ceph", "rw,name=admin,secret=<hidden>,acl", True),
        ("gpfs", "rw", True),
        ("lustre", "rw,flock,user_xattr,lazystatfs", True),
        ("lustre", "rw,localflock,lazystatfs", False),
        ("lustre", "rw,noflock,lazystatfs", False),
        ("fuse.sshfs", "rw,user_id=0,group_id=0", False),
        ("fuse", "rw", False),
        ("9p", "rw,trans=virtio", False),
        ("cifs", "rw,vers=3.1.1", False),
        ("beegfs", "rw,cfgFile=/etc/beegfs/beegfs-client.conf", False),
        ("of-tomorrow", "rw", False),
    ],
)
def test_whether_locks_are_known_to_reach_all_machines(kind, options, reach):
    lines = [
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
        LINE.format("/with\\040space", kind, "server:/export - data", options),
        "400 27 0:53 / /other rw - proc proc rw",
    ]
    assert mounts.has_shared_locks(*mounts.parse_mountinfo("\n".join(lines), "40")) is reach


def test_a_mount_that_is_not_listed_is_not_known():
    assert mounts.parse_mountinfo("27 1 254:0 / / rw - ext4 /dev/vda rw\n", "2") is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_file_is_found_on_the_file_system_that_it_is_on(tmp_path, whole):
    """Under a mount that covers another, too; and a cache on a disk of this machine has no owner file."""
    if not mounting.MAY_USE_FUSE:
        pytest.skip("needs the right to mount, and FUSE")
    write_dataset(tmp_path / "sounds")
    place = tmp_path / "a place"
    with mounting.mounted("tmpfs", place):
        write_dataset(place / "dataset")
        assert preprocess(place / "dataset", training()).decoded == 5
        assert list((place / "dataset" / ".cache").glob("owner*")) == []
        with mounting.shown(tmp_path / "sounds", place), next(place.rglob("*.wav")).open("rb") as file:
            assert mounts.mount_of(file.fileno())[0] == "fuse"
            assert not mounts.locks_reach_all_machines(file.fileno())


def test_one_process_at_a_time_has_the_cache(tmp_path):
    """Only a process that is alone can count; and each of those that have the cache has a number of its own."""
    counter, cache_dir = tmp_path / "counter", tmp_path / "cache"
    counter.write_text("0")
    arguments = ("count", cache_dir, counter, 20)
    with (
        machine("a", 60, *arguments) as one,
        machine("b", 60, *arguments) as two,
        machine("c", 60, *arguments) as three,
    ):
        for process in (one, two, three):
            output, errors = process.communicate(timeout=120)
            assert (process.returncode, output.split()) == (0, ["counts"] * 20), errors
    assert counter.read_text() == "60"
    number, record = owner_of(cache_dir)
    assert (number, record["state"]) == (60, "free")


def test_who_was_suspended_until_another_took_over_commits_nothing(dataset, whole, here):
    cache_dir = dataset / ".cache"
    with machine("a", 1, "preprocess", dataset) as suspended:
        hear(suspended, "holds")
        assert owner_of(cache_dir)[0] == 1
        suspended.send_signal(signal.SIGSTOP)
        with machine("b", 1, "preprocess", dataset) as owner:
            hear(owner, "holds")
            number, record = owner_of(cache_dir)
            assert (number, record["pid"], record["state"]) == (2, owner.pid, "held")
            suspended.send_signal(signal.SIGCONT)
            lost = outcome(suspended)
            assert lost["error"] == "StorageError"
            assert f"process {owner.pid} on {os.uname().nodename} has taken over" in lost["message"]
            assert "run the command again" in lost["tip"]
            assert not (slot_of(cache_dir) / "manifest.json").exists()
            assert owner_of(cache_dir)[0] == 2
            assert outcome(owner)["decoded"] == 5
    assert_whole(cache_dir, whole)
    here()
    assert verify(dataset).damaged == []
    assert preprocess(dataset, training()).decoded == 0
    assert owner_of(cache_dir)[0] == 4


@pytest.mark.parametrize("moment", ["features", "commit"])
def test_who_was_suspended_leaves_what_another_has_finished(dataset, whole, here, moment):
    """Nothing that it has computed is in the manifest, and no pack of the other is removed."""
    with machine("a", 1, "preprocess", dataset, moment) as suspended:
        hear(suspended, "holds")
        suspended.send_signal(signal.SIGSTOP)
        write(dataset / "later.wav", noise(77))
        here(lease_s=1)
        assert preprocess(dataset, training()).decoded == 6
        write(dataset / "latest.wav", noise(78))
        slot = slot_of(dataset / ".cache")
        kept = {path: path.read_bytes() for path in slot.rglob("*") if path.is_file()}
        suspended.send_signal(signal.SIGCONT)
        assert outcome(suspended)["error"] == "StorageError"
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(load_cache_manifest(slot)["files"]) == 6
    found = rows_by_content(slot)
    assert all(np.array_equal(found[content], rows) for content, rows in whole.items())
    assert verify(dataset).damaged == []


def test_who_was_suspended_while_another_did_all_the_work_has_its_result(dataset, whole, here):
    with machine("a", 1, "preprocess", dataset) as suspended:
        hear(suspended, "holds")
        suspended.send_signal(signal.SIGSTOP)
        here(lease_s=1)
        assert preprocess(dataset, training()).decoded == 5
        suspended.send_signal(signal.SIGCONT)
        assert outcome(suspended) == {"decoded": 0}
    assert_whole(dataset / ".cache", whole)


def test_a_killed_process_of_this_machine_is_replaced_at_once(dataset, whole, here, caplog):
    here(lease_s=3600)
    with machine("", 3600, "preprocess", dataset) as killed:
        hear(killed, "holds")
        killed.kill()
        killed.wait()
        assert owner_of(dataset / ".cache")[1]["state"] == "held"
        assert preprocess(dataset, training()).decoded == 5
    assert "did not respond" not in caplog.text
    assert owner_of(dataset / ".cache")[0] == 2
    assert_whole(dataset / ".cache", whole)


def test_a_killed_process_of_another_machine_is_replaced_after_a_lease(dataset, whole, here, caplog):
    here(lease_s=1)
    with machine("far", 1, "preprocess", dataset) as killed:
        hear(killed, "holds")
        killed.kill()
        killed.wait()
        assert preprocess(dataset, training()).decoded == 5
    assert re.search(rf"taken over: process {killed.pid} on \S+ did not respond for 1 s", caplog.text)
    assert_whole(dataset / ".cache", whole)
    assert verify(dataset).damaged == []


def test_a_lease_is_renewed_as_long_as_it_is_held(dataset, here):
    """Who waits sees other content each time, with the number of the same owner."""
    here(lease_s=0.3)
    seen = set()
    with CacheLock(dataset / ".cache"):
        while len(seen) < 4:
            number, record = owner_of(dataset / ".cache")
            assert number == 1
            seen.add(record["renewals"])


def test_waiting_is_said_and_ends_with_ctrl_c(dataset, here):
    here()
    arguments = ("command", "preprocess", dataset, *SMALL)
    with CacheLock(dataset / ".cache"), machine("far", 60, *arguments) as waiting:
        line = ""
        while "waiting" not in line:
            line = waiting.stdout.readline()
            assert line, "it did not wait"
        assert f"process {os.getpid()} on {os.uname().nodename} is using this cache" in line
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=60)
        assert waiting.returncode == 130
        assert owner_of(dataset / ".cache")[0] == 1
    assert not (dataset / ".cache" / "slots").exists()


def test_who_does_not_wait_is_told_at_once(dataset, here):
    here()
    with CacheLock(dataset / ".cache"):
        with pytest.raises(LockedError):
            CacheLock(dataset / ".cache", wait=False).__enter__()
        assert owner_of(dataset / ".cache")[0] == 1
    with CacheLock(dataset / ".cache", wait=False):
        assert owner_of(dataset / ".cache")[0] == 2


@pytest.mark.parametrize(
    "content", [b"", b"[" * 1024, b"\0" * 1024, b"[]", b'{"number": 4, "pid": -1, "machine": [], "state": 7}']
)
def test_an_owner_file_that_says_nothing_is_replaced_after_a_lease(tmp_path, here, content):
    here(lease_s=0.5)
    (tmp_path / "owner-4.json").write_bytes(content)
    with CacheLock(tmp_path):
        assert owner_of(tmp_path)[0] == 5


def test_an_owner_file_that_is_gone_is_not_made_again(dataset, here):
    """Whoever removed it, or the whole cache, may have let others in."""
    here()
    with CacheLock(dataset / ".cache") as lock:
        shutil.rmtree(dataset / ".cache")
        with CacheLock(dataset / ".cache"), pytest.raises(StorageError, match="gone or was replaced"):
            lock.check()
        assert owner_of(dataset / ".cache")[1]["state"] == "free"


def test_who_may_only_read_verifies_with_a_warning(unprivileged, here, caplog):
    write_dataset(unprivileged)
    here()
    preprocess(unprivileged, training())
    (unprivileged / ".cache").chmod(0o500)
    assert verify(unprivileged).damaged == []
    assert caplog.text.count("nothing may write to it there") == 1
