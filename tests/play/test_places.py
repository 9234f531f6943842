"""``distill play`` reads and writes a run, its dataset's sounds and nothing else, whatever a name or a link says."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
import soundfile

from distill.index import Dataset
from distill.runs.folder import RunFolder
from playing import Server, play, refusal, request, settings, wait_for_the_analysis
from sounds import sine, write

pytestmark = pytest.mark.needs("starlette", "uvicorn", "websockets")

HIDDEN = "not-to-be-seen"


@pytest.fixture(scope="module")
def root(trained: Path, tmp_path_factory) -> Path:
    """A folder of runs and a dataset, beside sounds and a run that are none of their business.

    The run "linked" has links where it has files of its own, and the dataset has some, too.
    """
    root = tmp_path_factory.mktemp("places")
    outside = root / "outside"
    shutil.copytree(trained, outside / "run")
    write(outside / f"{HIDDEN}.wav", sine(3_000.0), subtype="PCM_16")
    (outside / f"{HIDDEN}.png").write_bytes(b"\x89PNG " + HIDDEN.encode())
    (outside / f"{HIDDEN}.json").write_text(json.dumps(_shelf()))
    (outside / "empty").mkdir()
    sounds = RunFolder(trained).dataset().path
    shutil.copytree(sounds, root / "sounds")
    (root / "sounds" / "link.wav").symlink_to(outside / f"{HIDDEN}.wav")
    (root / "sounds" / "folder").symlink_to(outside)
    for name in ("first", "latent-away", "linked"):
        shutil.copytree(trained, root / "runs" / name)
        RunFolder(root / "runs" / name).write_dataset(Dataset(root / "sounds", cache_dir=root / "cache"))
    (root / "runs" / "away").symlink_to(outside / "run")
    _put_links(root / "runs" / "linked", outside)
    shutil.rmtree(root / "runs" / "latent-away" / "latent")
    (root / "runs" / "latent-away" / "latent").symlink_to(outside / "run" / "latent")
    return root


def _shelf() -> dict:
    return {"sounds": [{"id": "1", "name": HIDDEN, "kept": "2026-01-01T00:00:00Z", "settings": settings()}]}


def _put_links(run: Path, outside: Path) -> None:
    for picture in run.rglob("*.png"):
        _replace(picture, outside / f"{HIDDEN}.png")
    for sound in run.glob("previews/epoch-001/*.wav"):
        _replace(sound, outside / f"{HIDDEN}.wav")
    (run / "previews" / "epoch-009").symlink_to(outside)
    shutil.copy(outside / f"{HIDDEN}.wav", outside / "sample-1.wav")
    (run / "dropped").symlink_to(outside)
    (run / "shelf.json").symlink_to(outside / f"{HIDDEN}.json")


def _replace(file: Path, target: Path) -> None:
    file.unlink()
    file.symlink_to(target)


@pytest.fixture(scope="module")
def server(root: Path):
    with Server(root / "runs") as server:
        yield server


@pytest.fixture
def unchanged(root: Path, request):
    """Checks that nothing has changed but what the run "first" holds, and that nothing was given of what is secret."""
    before = _outside(root)
    yield
    assert _outside(root) == before


def _outside(root: Path) -> dict[str, tuple[int, bytes | None]]:
    own = root / "runs" / "first"
    files = [path for path in root.rglob("*") if own not in path.parents and "cache" not in path.parts]
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes())
        for path in files
        if path.is_file() and not path.is_symlink()
    } | {str(path): (0, os.fsencode(path.readlink())) for path in files if path.is_symlink()}


def _gives_nothing(reply) -> None:
    assert HIDDEN.encode() not in reply.body
    assert not reply.body.startswith((b"RIFF", b"\x89PNG"))
    assert b"root:" not in reply.body


NAMES = [
    "..",
    "../outside",
    "../outside/run",
    "../../outside/run",
    "first/../../outside/run",
    "./first",
    "/etc",
    "/etc/passwd",
    "away",
    "..\\outside",
    "~",
    "first\0",
    "\0",
    "first/",
    "",
    " ",
    ".",
    "\udcff",
    "x" * 5_000,
]


def _encodings(name: str) -> list[str]:
    """A name in the ways in which it can be written in an address."""
    encoded = quote(name, safe="", errors="surrogateescape")
    every = "".join(f"%{byte:02x}" for byte in os.fsencode(name))
    raw = [name] if name.isascii() and name.isprintable() and " " not in name else []
    return [*raw, encoded, every, encoded.replace("%", "%25"), encoded.replace("%2F", "/")]


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:30] for name in NAMES])
@pytest.mark.usefixtures("unchanged")
def test_no_name_of_a_run_leads_out_of_the_folder(server, name):
    for part in _encodings(name):
        for rest in ("", "/map", "/sounds", "/picture", "/shelf", "/training?after=0", "/previews/1/sample-1"):
            reply = server.ask(f"/api/runs/{part}{rest}")
            own = name in ("./first", "first/", "", ".") and reply.status == 200  # the same as /api/runs/first
            assert own or 300 <= reply.status < 500, (part, rest)
            if not own:
                _gives_nothing(reply)
        for method, rest, body in (
            ("POST", "/shelf", {"name": "a", "settings": settings()}),
            ("POST", "/sounds?name=a.wav", b"RIFF"),
            ("POST", "/analysis", b""),
            ("POST", "/save", {"settings": settings(), "format": "wav"}),
        ):
            reply = server.ask(f"/api/runs/{part}{rest}", body, method=method)
            assert 300 <= reply.status < 500, (part, rest)
            _gives_nothing(reply)


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:30] for name in NAMES])
@pytest.mark.usefixtures("unchanged")
def test_no_name_in_a_run_leads_out_of_it(server, name):
    for part in _encodings(name):
        for target in (
            f"previews/1/{part}",
            f"previews/{part}/sample-1",
            f"previews/{part}/{part}",
            f"picture/{part}",
            f"../../../{part}",
            part,
        ):
            _gives_nothing(server.ask(f"/api/runs/first/{target}"))
        for method, body in (("PUT", {"name": "a"}), ("DELETE", None)):
            reply = server.ask(f"/api/runs/first/shelf/{part}", body, method=method)
            assert 300 <= reply.status < 500


FILES = [
    "../pyproject.toml",
    "../server.py",
    "server.py",
    "..",
    "/etc/passwd",
    "../static/../server.py",
    "\0",
    "a\0.js",
]


@pytest.mark.parametrize("name", FILES, ids=ascii)
def test_the_files_of_the_page_are_all_that_is_given_without_a_token(server, name):
    for part in _encodings(name):
        for target in (f"/{part}", f"/static/{part}", f"//{part}"):
            reply = server.ask(target, token=None)
            assert reply.status >= 300, target
            assert b"import " not in reply.body
            _gives_nothing(reply)


@pytest.mark.parametrize("target", ["/../etc/passwd", "//etc/passwd", "/static/../../server.py", "\\..\\", "*", "@x/"])
def test_targets_that_no_client_sends_get_an_error(server, target):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(f"GET {target} HTTP/1.1\r\nHost: {server.netloc}\r\nConnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: line.recv(65_536), b""))
    assert int(reply.split()[1]) >= 300
    assert b"root:" not in reply
    assert b"import " not in reply


SOURCES = [
    f"../outside/{HIDDEN}.wav",
    f"tones/../../outside/{HIDDEN}.wav",
    f"/{HIDDEN}.wav",
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/mem",
    "link.wav",
    f"folder/{HIDDEN}.wav",
    "tones/tone-0.wav\0.wav",
    "tones",
    ".",
    "..",
    "tones/../../sounds/tones/tone-0.wav",
]


@pytest.mark.parametrize("name", SOURCES, ids=ascii)
@pytest.mark.usefixtures("unchanged")
def test_no_name_of_a_source_leads_out_of_the_dataset(server, root, name):
    if name.startswith(f"/{HIDDEN}"):
        name = str(root / "outside" / name[1:])
    for kind in ("dataset", "dropped"):
        source = {"kind": kind, "name": name, "offset": 0.0}
        around = {"around": {"source": source, "radius": 0.0}}
        with server.connect("first") as line:
            for message in (
                {"id": 1, "original": source, "duration": 1.0, "channels": 1},
                {"id": 2, "settings": settings(**around), "channels": 1},
            ):
                assert refusal(line, json.dumps(message))["error"]
            assert play(line, request(3)).samples.std() > 1e-3
        saved = server.ask("/api/runs/first/save", {"settings": settings(**around), "format": "wav"})
        assert 400 <= saved.status < 500
        kept = server.ask("/api/runs/first/shelf", {"name": "a", "settings": settings(**around)})
        assert 400 <= kept.status < 500
    assert not any(HIDDEN in sound or sound == "link.wav" for sound in _sounds(server)["dataset"])


def _sounds(server: Server, run: str = "first") -> dict:
    return server.ask(f"/api/runs/{run}/sounds").json


@pytest.mark.parametrize(
    "name", ["../a.wav", "../../outside/a.wav", "/a.wav", "a/b.wav", "..", ".", "\0.wav", ".lock", ".hidden.wav"]
)
@pytest.mark.usefixtures("unchanged")
def test_a_dropped_sound_stays_in_the_folder_of_dropped_sounds(server, root, tmp_path, name):
    content = write(tmp_path / "a.wav", sine(440.0), subtype="PCM_16").read_bytes()
    run = root / "runs" / "first"
    before = {path for path in run.rglob("*") if path.is_file()}
    for part in _encodings(name)[-4:]:
        reply = server.ask(f"/api/runs/first/sounds?name={part}", content)
        assert reply.status == 201 or 400 <= reply.status < 500
    made = {path for path in run.rglob("*") if path.is_file()} - before
    assert all(path.parent == run / "dropped" for path in made)
    assert all(not path.name.startswith(".") and soundfile.info(path).frames for path in made)


@pytest.mark.usefixtures("unchanged")
def test_a_dropped_sound_replaces_no_other_one(server, root, tmp_path):
    pitches = (440.0, 550.0)
    names = []
    for pitch in pitches:
        content = write(tmp_path / "a.wav", sine(pitch), subtype="PCM_16").read_bytes()
        reply = server.ask("/api/runs/first/sounds?name=same.wav", content)
        assert reply.status == 201
        assert reply.json["duration"] == pytest.approx(1.0, abs=1e-3)
        names.append(reply.json["source"]["name"])
    assert names[0] != names[1]
    assert set(names) <= set(_sounds(server)["dropped"])
    found = [soundfile.read(root / "runs" / "first" / "dropped" / name)[0] for name in names]
    for samples, pitch in zip(found, pitches, strict=True):
        assert samples == pytest.approx(sine(pitch), abs=1e-3)


@pytest.mark.usefixtures("unchanged")
def test_a_link_in_a_folder_of_runs_is_no_run(server):
    assert sorted(run["name"] for run in server.ask("/api/runs").json["runs"]) == ["first", "latent-away", "linked"]


@pytest.mark.usefixtures("unchanged")
def test_links_in_a_run_are_not_followed(server, root):
    linked = "/api/runs/linked"
    for target in ("picture", "previews/1/sample-1", "previews/1/picture", "previews/9/sample-1", "shelf", "sounds"):
        reply = server.ask(f"{linked}/{target}")
        assert reply.status < 500, target
        _gives_nothing(reply)
    content = (root / "sounds" / "tones" / "tone-0.wav").read_bytes()
    for target, body in (
        ("sounds?name=a.wav", content),
        (f"sounds?name={HIDDEN}.wav", content),
        ("shelf", {"name": "a", "settings": settings()}),
    ):
        assert server.ask(f"{linked}/{target}", body).status >= 400, target
    source = {"kind": "dropped", "name": f"{HIDDEN}.wav", "offset": 0.0}
    with server.connect("linked") as line:
        assert refusal(line, json.dumps({"id": 1, "original": source, "duration": 1.0, "channels": 1}))["error"]


@pytest.mark.usefixtures("unchanged")
def test_a_latent_folder_that_is_a_link_is_neither_read_nor_written(server, root):
    target = "/api/runs/latent-away"
    assert server.ask(f"{target}/map").status >= 400
    assert server.ask(f"{target}/picture").body != (root / "outside" / "run" / "latent" / "map.png").read_bytes()
    assert server.ask(target).json["analysis"]["state"] in ("missing", "failed")
    if server.ask(f"{target}/analysis", b"").status == 202:
        assert wait_for_the_analysis(server, "latent-away")["state"] == "failed"
