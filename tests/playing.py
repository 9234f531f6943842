"""`distill play` as a process, as a user starts it, and clients of its HTTP interface and its websocket."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import soundfile

COMMAND = "import sys; from distill.cli.main import main; sys.exit(main(sys.argv[1:]))"
_ADDRESS = re.compile(r"^http://127\.0\.0\.1:\d+/\?token=[\w-]+$", re.MULTILINE)
_START_S = 120
_REPLY_S = 120


@dataclass(frozen=True)
class Reply:
    """The reply to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Sound:
    """A binary message of the websocket."""

    header: dict[str, Any]
    samples: np.ndarray
    spectrogram: np.ndarray

    @classmethod
    def parse(cls, message: bytes) -> Sound:
        (length,) = struct.unpack_from("<I", message)
        assert (4 + length) % 4 == 0
        header = json.loads(message[4 : 4 + length])
        samples = np.frombuffer(message, "<f4", header["samples"], 4 + length)
        shape = [header["spectrogram"][name] for name in ("channels", "bands", "frames")]
        rest = message[4 + length + samples.nbytes :]
        return cls(header, samples, np.frombuffer(rest, np.uint8).reshape(shape))


class Server:
    """A running ``distill play``. Leaving the context ends it as Ctrl-C does."""

    def __init__(self, *argv: object, code: str = COMMAND, **environment: str) -> None:
        # Files, which take any amount of output without a reader. They share their position with the process, which
        # therefore appends.
        self._out, self._err = (tempfile.TemporaryFile("a+") for _ in range(2))  # noqa: SIM115 - closed at its end
        command = [sys.executable, "-c", code, "play", *map(str, argv), "--no-browser"]
        if "--port" not in argv:
            command += ["--port", "0"]
        # With one thread, sounds are the same to the last bit as those of a test that uses `one_thread`.
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err, env=environment
        )
        self.status: int | None = None

    def __enter__(self) -> Server:
        try:
            self._wait_for_the_address()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self.status is None:
            self.stop()

    def _wait_for_the_address(self) -> None:
        deadline = time.monotonic() + _START_S
        while not (found := _ADDRESS.search(self.output[0])):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)
        self.address = found[0]
        self.netloc, query = urlsplit(self.address).netloc, urlsplit(self.address).query
        self.port, self.token = int(self.netloc.partition(":")[2]), query.partition("=")[2]

    @property
    def output(self) -> tuple[str, str]:
        """What it has written to standard output and standard error."""
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read())
        return texts[0], texts[1]

    def stop(self, number: int = signal.SIGINT, timeout_s: float = 60) -> tuple[int, str, str]:
        """Send a signal; return exit status, standard output and standard error."""
        self.process.send_signal(number)
        try:
            self.status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self._close()

    def end(self) -> tuple[int, str, str]:
        """Wait until it has ended by itself; return exit status, standard output and standard error."""
        self.status = self.process.wait(_START_S)
        return self._close()

    def kill(self) -> None:
        self.process.kill()
        self.status = self.process.wait()
        self._close()

    def _close(self) -> tuple[int, str, str]:
        assert self.status is not None
        out, err = self.output
        self._out.close()
        self._err.close()
        return self.status, out, err

    def ask(
        self,
        target: str,
        body: bytes | dict[str, Any] | None = None,
        *,
        method: str | None = None,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request whose target is not changed on the way; without `token`, with that of the server."""
        token = self.token if token == "" else token
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_REPLY_S)
        try:
            connection.request(method or ("GET" if body is None else "POST"), target, body, sent)
            reply = connection.getresponse()
            return Reply(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def run(self, name: str, *rest: str) -> str:
        """Return the target of a part of the interface to a run."""
        return "/".join(["/api/runs", quote(name, safe=""), *rest])

    @contextmanager
    def connect(self, name: str, *, token: str | None = "", **options: Any) -> Iterator[Any]:
        """Connect to the websocket of a run, until the context is left."""
        from websockets.sync.client import connect

        token = self.token if token == "" else token
        query = "" if token is None else f"?token={token}"
        # A socket that is given is not that of a proxy.
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            options = {"max_size": None, "compression": None, "sock": sock} | options
            with connect(f"ws://{self.netloc}{self.run(name, 'play')}{query}", **options) as line:
                yield line

    def memory(self, figure: str = "VmRSS") -> int:
        """Return the memory of the process in bytes, as Linux counts it."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(figure + ":"))


def settings(**changes: Any) -> dict[str, Any]:
    """Settings of a sample of half a second; a start of another kind replaces "sample"."""
    start = {} if {"around", "between"} & changes.keys() else {"sample": {"temperature": 1.0}}
    return {"seed": 7, "duration": 0.5, "axes": {}} | start | changes


def request(number: int, **changes: Any) -> str:
    """A message that asks for a sound."""
    return json.dumps({"id": number, "settings": settings(**changes), "channels": 1})


def play(line, message: str) -> Sound:
    """Send a request over a websocket, and return the sound that comes back."""
    line.send(message)
    return answer(line, json.loads(message)["id"])


def answer(line, number: int) -> Sound:
    """Return the sound that answers a request; what else comes is left out."""
    while True:
        received = line.recv(timeout=_REPLY_S)
        if isinstance(received, bytes):
            sound = Sound.parse(received)
            if sound.header["id"] == number:
                return sound
        else:
            text = json.loads(received)
            assert "error" not in text, text


def refusal(line, message: str | bytes) -> dict[str, Any]:
    """Send a message that is refused, and return the error."""
    line.send(message)
    while True:
        received = line.recv(timeout=_REPLY_S)
        if isinstance(received, str) and "error" in (text := json.loads(received)):
            return text


def wait_for_the_analysis(server: Server, name: str) -> dict[str, Any]:
    """Return the state of the analysis of a run once it is not running."""
    while (analysis := server.ask(server.run(name)).json["analysis"])["state"] == "running":
        time.sleep(0.1)
    return analysis


def held_port() -> socket.socket:
    """A socket that holds a port of this machine."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    return holder


def dataset_source(name: str, **changes: Any) -> dict[str, Any]:
    """A file of the dataset as a source."""
    return {"kind": "dataset", "name": name, "offset": 0.0} | changes


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def generated(command: str, run, folder: Path) -> tuple[np.ndarray, bytes]:
    """The samples and the bytes of the only file that a command line writes."""
    words = shlex.split(command)
    assert words[:2] == ["distill", "generate"]
    out = folder / "sounds"
    words[words.index("--out") + 1] = str(out)
    code, _, err = run(*words[1:], "--force")
    assert code == 0, err
    (file,) = (path for path in out.iterdir() if path.suffix in (".wav", ".flac", ".ogg", ".mp3"))
    content = file.read_bytes()
    samples, _ = soundfile.read(file, dtype="float32")
    shutil.rmtree(out)
    return samples, content
