"""Preprocessing on a Ray cluster of two nodes gives what one machine gives, whatever dies on the way.

The nodes are real processes, with a token as on a cluster that distill starts. Nothing here waits for a fixed time.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from distill.audio import load_cache_manifest
from distill.cache.manifest import read_manifest
from distill.cli.main import main
from distill.preprocess.pipeline import preprocess
from sounds import SMALL, one_object, rows_by_content, slot_of, training, write_dataset

HERE = Path(__file__).parent
FILES = 24
PATIENCE_S = 200
# Variants of each chunk, and rows of a part: it takes about a second.
EXPANSION = 60
PART_ROWS = 400
CONFIG = training(augmentation_expansion=EXPANSION)

pytestmark = [pytest.mark.needs("ray"), pytest.mark.timeout(900)]


def wait_until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> object:
    """Wait for something to happen while a process runs, and return it."""
    until = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until, "it never happens"
        assert process is None or process.poll() is None, "the run has ended"
        time.sleep(0.005)
    return found


def environment(folder: Path) -> dict[str, str]:
    token = folder / "token"
    if not token.exists():
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
    paths = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, sys.path)])
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    return os.environ | settings | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


@dataclass
class Cluster:
    """Two nodes; the second can be removed."""

    process: subprocess.Popen
    folder: Path
    address: str = ""
    raylets: tuple[int, ...] = ()

    def answer(self, line: str = "") -> None:
        if line:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        self.address, self.raylets = found["address"], tuple(found["raylets"])

    def start(self, dataset: Path) -> subprocess.Popen:
        """Start to preprocess a dataset; standard error is DATASET.log."""
        with dataset.with_suffix(".log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, HERE / "ray_run.py", dataset, self.address, str(EXPANSION), str(PART_ROWS)],
                env=environment(self.folder),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def finish(self, run: subprocess.Popen, dataset: Path) -> dict:
        out, _ = run.communicate(timeout=PATIENCE_S)
        log = dataset.with_suffix(".log").read_text()
        assert run.returncode == 0, log
        return json.loads(out) | {"log": log}

    def busy(self, node: int) -> list[int]:
        """Return the processes of a node that compute a part at the moment."""
        return [
            pid for pid in processes() if parent(pid) == self.raylets[node] and command(pid).startswith(b"ray::extract")
        ]

    def is_idle(self) -> bool:
        return not any(self.busy(node) for node in range(len(self.raylets)))


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        process = subprocess.Popen(
            [sys.executable, HERE / "ray_nodes.py"],
            env=environment(Path(folder)) | {"RAY_TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        nodes = Cluster(process, Path(folder))
        try:
            nodes.answer()
            yield nodes
        finally:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The dataset, preprocessed on one machine."""
    root = tmp_path_factory.mktemp("alone") / "dataset"
    write_dataset(root, FILES)
    preprocess(root, CONFIG)
    return root


@pytest.fixture
def dataset(alone, tmp_path) -> Path:
    return shutil.copytree(alone, tmp_path / "dataset", ignore=shutil.ignore_patterns(".cache"))


def check_same(dataset: Path, alone: Path, run: Callable) -> None:
    """Check rows, statistics and checksums."""
    found, expected = rows_by_content(slot_of(dataset)), rows_by_content(slot_of(alone))
    assert found.keys() == expected.keys()
    for content, rows in expected.items():
        np.testing.assert_array_equal(found[content], rows)
    manifests = [load_cache_manifest(slot_of(root)) for root in (dataset, alone)]
    assert manifests[0]["normalization_stats"] == manifests[1]["normalization_stats"]
    assert manifests[0]["total_spectrograms"] == manifests[1]["total_spectrograms"]
    assert run("verify", dataset)[0] == 0


def contents(dataset: Path) -> int:
    """Return the number of contents that the cache or a part file has."""
    saved = [*dataset.glob(".cache/slots/*/manifest.json"), *dataset.glob(".cache/slots/*/parts/*.part.json")]
    manifests = [read_manifest(path) for path in saved]
    return len({content for manifest in manifests for content in manifest.kept().content_hashes})


def test_a_worker_that_is_killed_costs_nothing_but_its_part(cluster, dataset, alone, run):
    process = cluster.start(dataset)
    log = dataset.with_suffix(".log")

    def kill() -> bool:
        for pid in cluster.busy(1):
            os.kill(pid, signal.SIGKILL)
        return "is lost" in log.read_text()

    # One that is killed between two parts is only replaced.
    wait_until(kill, process)
    done = cluster.finish(process, dataset)
    assert done["decoded"] == FILES
    check_same(dataset, alone, run)


@pytest.mark.soak
def test_a_node_that_goes_away_costs_nothing_but_its_parts(cluster, dataset, alone, run):
    process = cluster.start(dataset)
    wait_until(lambda: cluster.busy(1), process)
    cluster.answer("remove")
    try:
        done = cluster.finish(process, dataset)
        assert done["decoded"] == FILES
        check_same(dataset, alone, run)
    finally:
        cluster.answer("add")


def test_the_command_shows_only_lines_of_distill(cluster, dataset, monkeypatch, run):
    for name, value in environment(cluster.folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(dataset.parent)
    code, out, err = run("preprocess", dataset.name, *SMALL, "--ray", cluster.address, "--json")
    result = one_object(code, out, err)
    assert (result["decoded"], result["rows"]) == (FILES, 2 * FILES)
    assert f"the Ray cluster at {cluster.address}" in err
    assert "the Ray cluster has 2 nodes, 2 CPUs" in err
    # Two nodes at one address.
    done = re.search(r"computed: (.*)", err)[1]
    assert sum(int(number) for number in re.findall(r"(\d+) files? on", done)) == FILES
    assert not re.search(r"raylet|pid=|WARN|\x1b|Traceback", err), err


def test_a_client_without_the_token_is_refused(cluster, dataset, monkeypatch, run):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    code, _, err = run("preprocess", dataset, *SMALL, "--ray", cluster.address)
    assert code == 1
    assert f"error: Ray at {cluster.address} refuses" in err
    assert "RAY_AUTH_TOKEN_PATH" in err
    assert not list(dataset.glob(".cache/slots/*/manifest.json"))


@pytest.mark.soak
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_what_has_a_part_file_when_the_command_ends_is_not_computed_again(cluster, dataset, alone, run, ending):
    process = cluster.start(dataset)
    wait_until(lambda: contents(dataset), process)
    process.send_signal(ending)
    process.communicate(timeout=PATIENCE_S)
    # The workers are ended, too.
    wait_until(cluster.is_idle)
    before = contents(dataset)
    done = cluster.finish(cluster.start(dataset), dataset)
    assert done["decoded"] == FILES - before
    check_same(dataset, alone, run)


@pytest.mark.soak
def test_a_connection_that_is_lost_is_an_error_with_a_remedy(cluster, dataset, alone, run):
    process = cluster.start(dataset)
    wait_until(lambda: contents(dataset), process)
    (driver,) = (pid for pid in processes() if parent(pid) == process.pid)
    os.kill(driver, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    log = dataset.with_suffix(".log").read_text()
    assert "the connection to the Ray cluster was lost" in log
    wait_until(cluster.is_idle)
    cluster.finish(cluster.start(dataset), dataset)
    check_same(dataset, alone, run)


@pytest.mark.soak
@pytest.mark.parametrize("part", ["dataset", "cache"])
def test_a_node_that_does_not_see_the_storage_is_named(cluster, dataset, monkeypatch, run, part):
    for name, value in environment(cluster.folder).items():
        monkeypatch.setenv(name, value)
    # A path that means something else in each process.
    monkeypatch.chdir(dataset.parent)
    paths = {"dataset": dataset, "cache": dataset.with_name("cache")}
    paths[part] = Path("/proc/self/cwd") / paths[part].name
    options = [paths["dataset"], *SMALL, "--cache-dir", paths["cache"], "--ray", cluster.address]
    code, _, err = run("preprocess", *options)
    assert code == 1
    assert re.search(rf"error: node [\d.]+: does not see the {part}, {paths[part]}", err), err
    assert "--num-cpus 0" in err


@pytest.mark.soak
def test_training_computes_its_features_on_the_cluster(cluster, dataset, monkeypatch, tmp_path, run):
    for name, value in environment(cluster.folder).items():
        monkeypatch.setenv(name, value)
    options = ["--out", tmp_path / "run", "--epochs", "1", "--no-analyze", "--ray", cluster.address]
    code, out, err = run("train", dataset, *SMALL, *options)
    assert code == 0, err
    assert "computed: " in out
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.soak
def test_two_drivers_compute_each_file_once(cluster, dataset, alone, run):
    other = dataset.with_name("same")
    other.symlink_to(dataset, target_is_directory=True)
    processes = [cluster.start(path) for path in (dataset, other)]
    done = [cluster.finish(*pair) for pair in zip(processes, (dataset, other), strict=True)]
    assert sum(each["decoded"] for each in done) == FILES
    check_same(dataset, alone, run)


@pytest.mark.soak
def test_a_node_that_stops_delays_nothing(cluster, dataset, alone, run):
    process = cluster.start(dataset)
    stopped = wait_until(lambda: cluster.busy(1), process)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        cluster.finish(process, dataset)
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    wait_until(cluster.is_idle)
    check_same(dataset, alone, run)
    # Whatever the stopped one still delivered has rows that are there.
    assert preprocess(dataset, CONFIG).decoded == 0
    check_same(dataset, alone, run)


@pytest.mark.soak
def test_a_cluster_that_is_started_here_ends_with_the_command(dataset, monkeypatch):
    before = set(Path("/tmp").glob("distill-ray-*"))  # noqa: S108
    assert main(["preprocess", str(dataset), *SMALL, "--ray", "--workers", "2"]) == 0
    assert set(Path("/tmp").glob("distill-ray-*")) == before  # noqa: S108
