"""Scans of a list of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distill.index import Manifest
from scans import audio, scan_dataset


def test_listed_files_are_used_instead_of_walking(tree: Path):
    scan = scan_dataset(Manifest(), tree, files=["a.wav", tree / "deep/er/../er/c.flac", "gone.wav"])
    assert scan.added == ["a.wav", "deep/er/c.flac"]
    assert scan.faults == [("gone.wav", "no such file")]
    with pytest.raises(ValueError, match=r"\.\./x\.wav.*inside the dataset"):
        scan_dataset(Manifest(), tree, files=["../x.wav"])
    with pytest.raises(ValueError, match="absolute"):
        Manifest().scan(tree, extensions=["wav"], files=[b"/x.wav"])


def test_a_listed_file_may_be_given_by_any_path_to_it(tree: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "link").symlink_to(tree)
    (tree / "..odd.wav").write_bytes(audio("odd"))
    monkeypatch.chdir(tree.parent)
    paths = ["a.wav", "./a.wav", "deep/../a.wav", "../dataset/a.wav", tree / "a.wav", tmp_path / "link" / "a.wav"]
    for root in (tree, tree.name, f"../{tmp_path.name}/dataset", tmp_path / "link", "link"):
        for path in paths:
            if path == "../dataset/a.wav" and "link" in str(root):
                continue
            assert scan_dataset(Manifest(), root, files=[path]).added == ["a.wav"], (root, path)
    assert scan_dataset(Manifest(), tree, files=["..odd.wav"]).added == ["..odd.wav"]
    for outside in ("..", ".", "", "../x.wav", "deep/../../x.wav", tmp_path / "x.wav", f"{tree}-2/a.wav", tree):
        with pytest.raises(ValueError, match="inside the dataset"):
            scan_dataset(Manifest(), tree, files=[outside])


def test_plain_names_of_listed_files_are_not_resolved(tree: Path, monkeypatch):
    resolved = []
    realpath = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **named: resolved.append(path) or realpath(path, **named))
    files = [f"deep/{number}.wav" for number in range(500)]
    scan_dataset(Manifest(), tree, files=[*files, *(tree / file for file in files)])
    assert len(resolved) <= 1
