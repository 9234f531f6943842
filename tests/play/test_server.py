"""``distill play`` as a process: its sounds, several runs, and how it starts and ends."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.runs.folder import RunFolder
from playing import (
    Server,
    answer,
    contents,
    dataset_source,
    generated,
    held_port,
    play,
    request,
    settings,
    wait_for_the_analysis,
)

pytestmark = [pytest.mark.needs("starlette", "uvicorn", "websockets"), pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_sound_is_that_of_the_command_that_comes_with_it(server, run, tmp_path, channels):
    drum = dataset_source("drums/drum-3.wav")
    for number, start in enumerate(
        (
            {},
            {"axes": {"1": 1.5, "2": -1.0}, "sample": {"temperature": 0.7}, "seed": 2**31 - 1},
            {"around": {"source": drum, "radius": 0.4}, "axes": {"1": 0.5}},
            {"between": {"from": drum, "to": dataset_source("tones/tone-2.wav", offset=0.25), "at": 0.25}},
        )
    ):
        with server.connect("first") as line:
            asked = json.loads(request(number, **start)) | {"channels": channels}
            sound = play(line, json.dumps(asked))
        samples, _ = generated(sound.header["command"], run, tmp_path)
        np.testing.assert_allclose(sound.samples, samples, rtol=0, atol=2**-22)
        assert sound.samples.std() > 1e-3
        assert sound.header["settings"] == asked["settings"]
        assert sound.spectrogram.shape[:2] == (channels, 32)


def test_the_spectrogram_shows_the_pitch_of_a_tone(server, trained):
    """The brightest band is the one around the frequency, in a file of the dataset."""
    with server.connect("first") as line:
        line.send(json.dumps({"id": 1, "original": dataset_source("tones/tone-2.wav"), "duration": 0.5, "channels": 2}))
        sound = answer(line, 1)
    details = server.ask("/api/runs/first").json
    brightest = sound.spectrogram[0].mean(axis=1).argmax()
    centres = np.array(details["bands_hz"])
    assert abs(brightest - np.abs(centres - 440).argmin()) <= 1
    written, rate = soundfile.read(RunFolder(trained).dataset().path / "tones" / "tone-2.wav", dtype="float32")
    assert (sound.header["kind"], sound.header["sample_rate"]) == ("original", rate)
    assert _same_up_to_scale(sound.samples, written[: len(sound.samples)])


def _same_up_to_scale(first: np.ndarray, second: np.ndarray) -> bool:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second)) > 0.9999


def test_two_runs_are_played_at_once_each_with_its_own_model(server, run, tmp_path):
    with server.connect("first") as first, server.connect("second") as second:
        for number in range(3):
            for line in (first, second):
                line.send(request(number, seed=number))
            heard = [answer(line, number) for line in (first, second)]
        for name, sound in zip(("first", "second"), heard, strict=True):
            assert f"/{name} " in sound.header["command"]
            samples, _ = generated(sound.header["command"], run, tmp_path)
            np.testing.assert_allclose(sound.samples, samples, rtol=0, atol=2**-22)
    assert not np.array_equal(heard[0].samples, heard[1].samples)


def test_a_shelf_is_kept_in_the_run_and_named_anew(server, runs):
    kept = server.ask("/api/runs/second/shelf", {"name": "first <b>", "settings": settings(seed=5)})
    assert kept.status == 201
    entry = kept.json
    assert entry["settings"]["seed"] == 5
    target = f"/api/runs/second/shelf/{entry['id']}"
    assert server.ask(target, {"name": "ü"}, method="PUT").status == 200
    (found,) = server.ask("/api/runs/second/shelf").json["sounds"]
    assert found["name"] == "ü"
    assert found == json.loads((runs / "second" / "shelf.json").read_text("utf-8"))["sounds"][0]
    assert "--seed 5" in found["command"]
    assert server.ask(target, method="DELETE").status in (200, 204)
    assert server.ask("/api/runs/second/shelf").json["sounds"] == []


def test_ctrl_c_ends_at_once_with_the_status_of_other_commands(runs):
    with Server(runs / "first") as server:
        server.ask("/api/runs")
        status, out, err = server.stop()
    assert status == 128 + signal.SIGINT, err
    assert out.count(server.address) == 1
    assert "kept" in err
    assert "Traceback" not in err


def test_ctrl_c_ends_at_once_while_pages_are_open_and_sounds_are_made(runs):
    with Server(runs) as server, ExitStack() as stack:
        lines = [stack.enter_context(server.connect("first")) for _ in range(3)]
        play(lines[0], request(1))
        for number in range(2, 20):
            for line in lines:
                line.send(request(number, duration=60.0))
        status, _, err = server.stop()
    assert status == 128 + signal.SIGINT, err
    assert "kept" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_analyses_and_what_is_there_is_kept(runs, tmp_path, number):
    shutil.copytree(runs / "second", tmp_path / "run")
    target = "/api/runs/run/analysis"
    with Server(tmp_path / "run") as server:
        name = server.ask("/api/runs").json["runs"][0]["name"]
        target = f"/api/runs/{name}/analysis"
        started = server.ask(target, b"")
        assert started.status == 202
        assert started.json["state"] == "running"
        status, _, err = server.stop(number)
    assert status == 128 + number, err
    assert "kept" in err
    assert "Traceback" not in err
    assert contents(tmp_path / "run").keys() >= {"model.safetensors", "run.json", "config.toml"}
    with Server(tmp_path / "run") as server:
        assert _analysed(server, name)["axes"]


def _analysed(server: Server, name: str) -> dict:
    """Details of a run once it is analysed, which is asked for if it is not yet."""
    if server.ask(f"/api/runs/{name}").json["analysis"]["state"] in ("missing", "outdated"):
        assert server.ask(f"/api/runs/{name}/analysis", b"").status == 202
    assert wait_for_the_analysis(server, name)["state"] == "ready"
    return server.ask(f"/api/runs/{name}").json


def test_a_run_that_another_process_trains_is_not_analysed(runs, tmp_path):
    shutil.copytree(runs / "second", tmp_path / "run")
    with Server(tmp_path) as server, RunFolder(tmp_path / "run").lock():
        reply = server.ask("/api/runs/run/analysis", b"")
        assert reply.status == 409
        assert "process" in reply.json["error"]
        assert server.ask("/api/runs").json["runs"][0]["state"] == "training"
        with server.connect("run") as line:
            assert play(line, request(1)).samples.std() > 1e-3


def test_a_port_in_use_is_an_error_with_a_remedy(run, runs):
    with held_port() as holder:
        port = holder.getsockname()[1]
        code, out, err = run("play", runs, "--no-browser", "--port", port)
    assert code == 2
    assert str(port) in err
    assert "tip: " in err
    assert "--port" in err
    assert "http://" not in out


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "websockets"])
def test_without_the_packages_the_error_says_how_to_install_them(runs, monkeypatch, run, name):
    import sys

    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    for module in [module for module in sys.modules if module.startswith("distill.play")]:
        monkeypatch.delitem(sys.modules, module)
    code, _, err = run("play", runs, "--no-browser")
    assert code == 2
    assert "pip install 'distill[play]'" in err


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("run")])
def test_what_is_no_run_is_an_error_that_names_it(run, tmp_path, make):
    make(tmp_path / "nothing here")
    code, _, err = run("play", tmp_path / "nothing here", "--no-browser")
    assert code == 2
    assert "nothing here" in err
    assert "tip: " in err


# Files that only root may read are imported before.
UNPRIVILEGED = """
import os, sys
from distill.cli.main import COMMANDS, load, main
for command in COMMANDS.values():
    load(command.runner)
load("distill.cli.parsing:parse")
"".encode("idna")
import uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto, uvicorn.loops.auto, uvicorn.lifespan.on
import distill.play.server
if os.geteuid() == 0:
    os.seteuid(65534)
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_that_may_only_be_read_is_played_and_saving_to_it_says_why_not(trained):
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        folder = Path(open_to_all) / "run"
        shutil.copytree(trained, folder)
        shutil.rmtree(folder / "latent")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = contents(folder)
        try:
            _play_without_writing(folder)
            assert contents(folder) == before
        finally:
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)


def _play_without_writing(folder: Path) -> None:
    with Server(folder, code=UNPRIVILEGED) as server:
        with server.connect("run") as line:
            sound = play(line, request(1))
            assert sound.samples.std() > 1e-3
        content = BytesIO()
        soundfile.write(content, sound.samples, sound.header["sample_rate"], format="WAV")
        for target, body in (
            ("save", {"settings": settings(), "format": "wav"}),
            ("shelf", {"name": "a", "settings": settings()}),
            ("sounds?name=a.wav", content.getvalue()),
        ):
            reply = server.ask(f"/api/runs/run/{target}", body)
            assert 400 <= reply.status <= 500, target
            assert "writ" in reply.json["error"], (target, reply.json)
            assert reply.json["tip"], target
        assert server.ask("/api/runs/run/analysis", b"").status == 202
        analysis = wait_for_the_analysis(server, "run")
        assert analysis["state"] == "failed"
        assert "writ" in analysis["reason"]
