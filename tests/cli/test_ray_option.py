"""``--ray``: what it means without a value, and what is said where there is no Ray, or no cluster."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import socket

import pytest

from distill.cli.options import PreprocessArguments, TrainArguments
from distill.cli.parsing import parse
from sounds import SMALL, write_dataset


@pytest.fixture
def has_ray(monkeypatch):
    """Let Ray seem to be installed, in a version."""

    def set_version(version):
        find_spec, find_version = importlib.util.find_spec, importlib.metadata.version
        spec = object() if version else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "ray" else find_spec(name))
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: version if name == "ray" else find_version(name)
        )

    return set_version


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (["--ray"], "local"),
        (["--ray", "--yes"], "local"),
        (["--yes", "--ray", "auto"], "auto"),
        (["--ray", "10.0.0.5:6379"], "10.0.0.5:6379"),
        (["--ray", "[::1]:6379"], "[::1]:6379"),
        (["--ray=head:6379"], "head:6379"),
        ([], None),
    ],
)
@pytest.mark.parametrize("kind", [PreprocessArguments, TrainArguments])
def test_the_address_may_be_left_out(has_ray, kind, options, address):
    has_ray("2.60.0")
    assert parse(kind, ["sounds", *options], "distill").ray == address


@pytest.mark.parametrize("address", ["sounds", "ray://head:10001", "head", "head:6379/x", "head:port"])
def test_what_is_no_address_is_refused(has_ray, run, address):
    has_ray("2.60.0")
    code, out, err = run("preprocess", "--ray", address, "sounds")
    assert (code, out) == (2, "")
    assert f"error: --ray {address}: not an address" in err
    assert "HOST:PORT" in err


@pytest.mark.parametrize(("version", "said"), [(None, "is not installed"), ("2.9.3", "2.9.3 is installed")])
def test_without_a_ray_that_can_demand_a_token_the_remedy_is_said(has_ray, run, tmp_path, version, said):
    has_ray(version)
    write_dataset(tmp_path / "dataset")
    code, out, err = run("preprocess", tmp_path / "dataset", "--ray")
    assert (code, out) == (1, "")
    assert said in err
    assert "pip install 'distill[ray]'" in err
    assert not (tmp_path / "dataset" / ".cache").exists()


@pytest.mark.needs("ray")
def test_an_address_without_a_cluster_is_an_error_at_once(run, tmp_path):
    write_dataset(tmp_path / "dataset")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = run("preprocess", tmp_path / "dataset", *SMALL, "--ray", address)
    assert code == 1
    assert f"error: no Ray cluster at {address}: Connection refused" in err
    assert "tip: give the address that ray start --head printed" in err
