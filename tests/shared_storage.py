"""A process on a machine that shares a cache, whose file system shows no lock to other machines.

`python shared_storage.py MACHINE LEASE_S COMMAND ...` says what it does in lines on stdout. If MACHINE is empty, it is
on the machine of the test that runs it.
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

from distill.cache import lease, mounts
from distill.cache.lock import CacheLock

KIND = "fuse.sshfs"


def share(patch, machine: str = "", lease_s: float = 60) -> None:
    """Be such a machine from here on. `patch` replaces an attribute."""
    patch(fcntl, "flock", lambda descriptor, operation: None)
    patch(mounts, "mount_of", lambda descriptor: (KIND, frozenset()))
    patch(lease, "LEASE_S", lease_s)
    patch(lease, "POLL_S", 0.01)
    if machine:
        patch(lease, "_machine", lambda: machine)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def count(cache_dir: str, counter: str, times: str) -> None:
    """Add one to the number in a file, as only a process that is alone can: it reads, waits and writes."""
    for _ in range(int(times)):
        with CacheLock(Path(cache_dir)) as lock:
            number = int(Path(counter).read_text())
            say("counts")
            lock.check()
            Path(counter).write_text(str(number + 1))


def preprocess(dataset: str, hold: str = "features") -> None:
    """Preprocess. With the first file done, or when the first manifest is made, say so and wait for a line on stdin."""
    from distill.cache import writer
    from distill.errors import DistillError
    from distill.preprocess import pipeline
    from sounds import training

    def wait():
        say("holds")
        sys.stdin.readline()

    def progress(stage, current, total):
        if stage == hold and current == 1:
            wait()

    def build_header(*arguments, **options):
        if hold == "commit":
            wait()
        return make(*arguments, **options)

    make, writer.build_header = writer.build_header, build_header
    try:
        result = pipeline.preprocess(Path(dataset), training(), progress=progress)
    except DistillError as error:
        say(json.dumps({"error": type(error).__name__, "message": str(error), "tip": error.tip}))
    else:
        say(json.dumps({"decoded": result.decoded}))


def command(*arguments: str) -> None:
    """Run a command of distill."""
    from distill.cli.main import main

    sys.exit(main(arguments))


if __name__ == "__main__":
    _, machine, lease_s, name, *arguments = sys.argv
    share(setattr, machine, float(lease_s))
    {"count": count, "preprocess": preprocess, "command": command}[name](*arguments)
