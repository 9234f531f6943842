"""Names that are no UTF-8 are shown, and what they name is played."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from playing import Server, dataset_source, play, request

pytestmark = pytest.mark.needs("starlette", "uvicorn", "websockets")


def test_a_run_and_a_sound_with_bytes_that_are_no_utf_8_are_played(copied, tmp_path):
    dataset = shutil.copytree(json.loads((copied / "run.json").read_text())["dataset"], tmp_path / "dataset")
    report = json.loads((copied / "latent" / "analysis.json").read_text())
    old, new = report["files"][0], os.fsdecode(b"odd \xff.wav")
    (dataset / old).rename(dataset / new)
    report |= {"dataset": str(dataset), "files": [new, *report["files"][1:]]}
    (copied / "latent" / "analysis.json").write_text(json.dumps(report))
    shutil.copytree(copied, copied.parent / os.fsdecode(b"run \xff"))
    with Server(copied.parent) as server:
        names = [run["name"] for run in server.ask("/api/runs").json["runs"]]
        assert sorted(names) == ["copied", r"run \xff"]
        for name in names:
            assert server.ask(server.run(name)).json["name"] == name
            assert new in server.ask(server.run(name, "sounds")).json["dataset"]
            with server.connect(name) as line:
                odd, other = (
                    play(line, request(number, around={"source": dataset_source(sound), "radius": 0.0}))
                    for number, sound in enumerate((new, report["files"][-1]))
                )
            assert odd.samples.std() > 1e-3
            assert np.abs(odd.samples - other.samples).max() > 0.01
        assert new in server.ask("/api/runs/copied/map").json["files"]
        kept = {"name": "odd", "settings": odd.header["settings"]}
        assert server.ask("/api/runs/copied/shelf", kept).json["settings"] == kept["settings"]
