"""``distill play`` under load: it stays up, its memory does not grow, and nothing is written that should not be."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from instruments import tones, write_axis, write_run
from playing import Server, Sound, contents, play, request, settings

pytestmark = [
    pytest.mark.needs("starlette", "uvicorn", "websockets"),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc"),
]

_EVERY_S = 1 / 60
_SLACK = 60_000_000
_ENDLESS = 2_000_000_000
_PIECE = bytes(1 << 20)
# Of `distill.play`: a dropped file is at most so large, in bytes.
_LARGEST = 256_000_000


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with an axis: the PCA of tones."""
    folder = write_run(tmp_path_factory.mktemp("load") / "run", tones(), latent_dim=16)
    write_axis(folder, np.random.default_rng(0).standard_normal(8 * 16), "axis1")
    return folder


@pytest.fixture
def server(run: Path):
    with Server(run) as server:
        server.name = server.ask("/api/runs").json["runs"][0]["name"]
        yield server


class Drag(threading.Thread):
    """A page on which a slider is dragged: moves at the rate of a screen, and sounds as they come."""

    def __init__(self, server: Server, seed: int, ends: threading.Event) -> None:
        super().__init__()
        self._server, self._seed, self._ends = server, seed, ends
        self.sounds: list[int] = []
        self.moves = 0
        self.last: Sound | None = None

    def move(self) -> str:
        """The next message."""
        self.moves += 1
        return request(self.moves, seed=self._seed, axes={"1": round(3 * np.sin(self.moves / 20), 3)})

    def run(self) -> None:
        with self._server.connect(self._server.name) as line:
            reader = threading.Thread(target=self._read, args=(line,))
            reader.start()
            while not self._ends.wait(_EVERY_S):
                line.send(self.move())
            line.send(self.move())
            reader.join(60)

    def _read(self, line) -> None:
        while not self.sounds or not self._ends.is_set() or self.sounds[-1] < self.moves:
            received = line.recv(timeout=60)
            if isinstance(received, bytes):
                self.last = Sound.parse(received)
                self.sounds.append(self.last.header["id"])


def _never_reads(server: Server, ends: threading.Event) -> None:
    """Ask for long sounds, and read none of them; connect again when the server has had enough."""
    from websockets.exceptions import ConnectionClosed

    while not ends.is_set():
        try:
            with server.connect(server.name, max_queue=1, close_timeout=0.1) as asking:
                number = 0
                while not ends.wait(0.05):
                    number += 1
                    asking.send(request(number, duration=3.0))
        except (ConnectionClosed, OSError):
            continue


def _sends_garbage(server: Server, ends: threading.Event, tried: Counter[str]) -> None:
    from websockets.exceptions import ConnectionClosed

    randomly, valid = random.Random(0), request(1)
    while not ends.is_set():
        try:
            with server.connect(server.name, close_timeout=0.1) as line:
                while not ends.wait(0.02):
                    place, size = randomly.randrange(len(valid)), randomly.randrange(8)
                    noise = randomly.randbytes(size)
                    message = valid[:place] + noise.decode("latin-1") + valid[place + size :]
                    line.send(noise if randomly.random() < 0.05 else message)
                    tried["messages of garbage to a page's server"] += 1
        except (ConnectionClosed, OSError):
            continue


def test_pages_that_drag_beside_clients_that_misbehave(server, run, soak, tried):
    before, ends = contents(run.parent), threading.Event()
    with server.connect(server.name) as line:
        play(line, request(1, duration=3.0))
    drags = [Drag(server, seed, ends) for seed in range(5)]
    others = [
        threading.Thread(target=_never_reads, args=(server, ends)),
        threading.Thread(target=_sends_garbage, args=(server, ends, tried)),
    ]
    for client in (*drags, *others):
        client.start()
    try:
        time.sleep(15 if soak else 4)  # until memory has been used once
        used = [server.memory()]
        for _ in range(9):
            time.sleep(5 if soak else 0.7)
            used.append(server.memory())
    finally:
        ends.set()
        for client in (*drags, *others):
            client.join(60)
    assert used[-1] < used[0] + _SLACK, used
    assert server.process.poll() is None
    for drag in drags:
        assert drag.sounds[-1] == drag.moves  # the latest move was played
        assert len(drag.sounds) > 5
        assert drag.sounds == sorted(set(drag.sounds))
        with server.connect(server.name) as line:
            alone = play(line, json.dumps({"id": 1, "settings": drag.last.header["settings"], "channels": 1}))
        assert np.array_equal(drag.last.samples, alone.samples)
        assert alone.samples.std() > 1e-3
        tried["moves of a slider"] += drag.moves
        tried["sounds of a page"] += len(drag.sounds)
    assert contents(run.parent) == before


def _upload(server: Server, header: str) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    target = f"{server.run(server.name, 'sounds')}?name=endless.wav&token={server.token}"
    line.sendall(f"POST {target} HTTP/1.1\r\nHost: {server.netloc}\r\n{header}\r\n\r\n".encode())
    return line


def _send_until_refused(line: socket.socket, frame) -> tuple[int, bytes]:
    """Send 2 GB; return how much was sent before the answer, and the answer."""
    sent = 0
    line.setblocking(False)
    piece, rest = frame(_PIECE), b""
    while sent < _ENDLESS:
        try:
            if answer := line.recv(65_536):
                return sent, answer
        except BlockingIOError:
            pass
        rest = rest or piece
        try:
            count = line.send(rest)
        except BlockingIOError:
            time.sleep(0.001)
            continue
        except ConnectionError:
            return sent, b""
        rest, sent = rest[count:], sent + count
    return sent, b""


def _chunk(piece: bytes) -> bytes:
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


@pytest.mark.parametrize(
    ("header", "frame", "most"),
    [
        (f"Content-Length: {_ENDLESS}", bytes, 50_000_000),
        ("Transfer-Encoding: chunked", _chunk, _LARGEST + 50_000_000),
    ],
    ids=["a length that is too large", "no length"],
)
def test_an_upload_of_gigabytes_is_refused_early_and_not_held_in_memory(server, run, header, frame, most):
    before, used = contents(run.parent), server.memory()
    with _upload(server, header) as line:
        sent, answer = _send_until_refused(line, frame)
    assert sent <= most
    assert answer == b"" or b" 413 " in answer.partition(b"\r\n")[0]
    assert server.memory("VmHWM") < used + _SLACK
    assert contents(run.parent) == before
    with server.connect(server.name) as page:
        assert play(page, request(1)).samples.std() > 1e-3


def test_an_upload_of_gigabytes_is_answered_with_413(server):
    with _upload(server, f"Content-Length: {_ENDLESS}") as line:
        assert b" 413 " in line.recv(65_536).partition(b"\r\n")[0]


def test_uploads_that_are_cut_off_or_slow_leave_nothing_behind_and_delay_nobody(server, run):
    before = contents(run.parent)
    slow = [_upload(server, "Content-Length: 5000000") for _ in range(20)]
    for line in slow:
        line.sendall(_PIECE)
    with server.connect(server.name) as page:
        assert play(page, request(1)).samples.std() > 1e-3
    assert server.ask("/api/runs").status == 200
    for line in slow:
        line.close()
    deadline = time.monotonic() + 60
    while contents(run.parent) != before:
        assert time.monotonic() < deadline, contents(run.parent).keys() - before.keys()
        time.sleep(0.1)


def test_a_thousand_connections_one_after_the_other_leave_nothing_behind(server, soak, tried):
    used, descriptors = [], []
    for number in range(1_000 if soak else 150):
        with server.connect(server.name) as line:
            if number % 10 == 0:
                play(line, json.dumps({"id": number, "settings": settings(), "channels": 2}))
        tried["connections to a page's server"] += 1
        if number % 50 == 40:
            used.append(server.memory())
            descriptors.append(len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())))
    assert used[-1] < used[0] + _SLACK
    assert descriptors[-1] <= descriptors[0] + 5
