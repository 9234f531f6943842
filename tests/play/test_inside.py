"""Reading inside a run never leaves it, and never waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distill.errors import NotFoundError
from distill.play.inside import read_inside


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "latent").mkdir(parents=True)
    (folder / "latent" / "map.png").write_bytes(b"\x89PNG...")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner link").symlink_to("latent/map.png")
    (folder / "folder link").symlink_to(tmp_path / "other")
    os.mkfifo(folder / "fifo")
    (folder / "large").write_bytes(b"x" * 101)
    return folder


def test_a_file_is_read_also_through_a_link_to_the_run(run, tmp_path):
    assert read_inside(run, "latent", "map.png") == b"\x89PNG..."
    (tmp_path / "run link").symlink_to(run)
    assert read_inside(tmp_path / "run link", "latent", "map.png") == b"\x89PNG..."
    assert len(read_inside(run, "large", largest=101)) == 101


@pytest.mark.parametrize(
    "parts",
    [
        (),
        ("",),
        (".",),
        ("..", "secret"),
        ("latent", "..", "..", "secret"),
        ("../secret",),
        ("latent/map.png",),
        ("link",),
        ("inner link",),
        ("folder link", "secret"),
        ("fifo",),
        ("latent",),
        ("large",),
        ("latent", "map.png", "x"),
        ("nothing",),
        ("map\0.png",),
        ("x" * 300,),
        ("\ud800",),
    ],
    ids=repr,
)
def test_anything_else_is_refused(run, parts):
    with pytest.raises(NotFoundError) as caught:
        read_inside(run, *parts, largest=100)
    assert "secret" not in str(caught.value) or "secret" in parts or "../secret" in parts


def test_devices_are_not_read():
    with pytest.raises(NotFoundError, match="not a regular file"):
        read_inside(Path("/dev"), "zero")


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_no_descriptor_stays_open(run):
    before = open_descriptors()
    for parts in [("latent", "map.png"), ("folder link", "secret"), ("fifo",), ("latent", "nothing")] * 20:
        try:
            read_inside(run, *parts)
        except NotFoundError:
            continue
    assert open_descriptors() == before
