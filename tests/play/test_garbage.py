"""Bad input to ``distill play``: an error that names the value, and the next sound is played."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from playing import contents, dataset_source, play, refusal, request, settings

pytestmark = pytest.mark.needs("starlette", "uvicorn", "websockets")

# What JSON allows, or nearly, and a part of the error that it gets.
GARBAGE = [
    (b"\x00\xff\x00", ""),
    ("", ""),
    ("null", ""),
    ("[]", ""),
    ("{}", "id"),
    ("{", ""),
    ("[" * 100_000, ""),
    ('{"id":' * 50_000, ""),
    ("\U0001f600" * 1000, ""),
    ('{"id": 1}', "settings"),
    ('{"id": "1", "settings": {}}', "id"),
    ('{"id": 1e999, "settings": {}}', ""),
    ('{"id": 1, "settings": 3}', "settings"),
    ('{"id": 1, "settings": {}}', "sample"),
    ('{"id": 1, "original": 3}', "original"),
    ('{"id": 1, "settings": {}, "original": {}}', ""),
]
TONE, NONE = dataset_source("tones/tone-0.wav"), dataset_source("none.wav")
CHANGES = [
    ({"seed": -1}, "seed"),
    ({"seed": 2**31}, "seed"),
    ({"seed": 10**400}, "1000000"),
    ({"seed": 1.5}, "seed"),
    ({"seed": "7"}, "seed"),
    ({"seed": True}, "seed"),
    ({"seed": None}, "seed"),
    ({"seed": float("nan")}, ""),
    ({"duration": 0}, "duration"),
    ({"duration": -1}, "duration"),
    ({"duration": 61}, "duration"),
    ({"duration": 1e308}, "duration"),
    ({"duration": float("inf")}, ""),
    ({"duration": "1"}, "duration"),
    ({"axes": []}, "axes"),
    ({"axes": {"0": 1}}, "axes"),
    ({"axes": {"one": 1}}, "axes"),
    ({"axes": {"9999": 1}}, "9999"),
    ({"axes": {"1": 20.5}}, "axes"),
    ({"axes": {"1": "2"}}, "axes"),
    ({"axes": {"1": None}}, "axes"),
    ({"axes": {str(number): 1 for number in range(1, 200)}}, "axes"),
    ({"sample": {"temperature": -1}}, "temperature"),
    ({"sample": {"temperature": 21}}, "temperature"),
    ({"sample": {"temperature": {}}}, "temperature"),
    ({"sample": {}}, "temperature"),
    ({"sample": None}, "sample"),
    ({"sample": {"temperature": 1, "more": 1}}, "more"),
    ({"unknown": 1}, "unknown"),
    ({"sample": {"temperature": 1}, "around": {"source": TONE, "radius": 0}}, "around"),
    ({"around": {"source": TONE, "radius": -1}}, "radius"),
    ({"around": {"source": TONE}}, "radius"),
    ({"around": {"source": dataset_source("tones/tone-0.wav", offset=-1), "radius": 0}}, "offset"),
    ({"around": {"source": dataset_source("tones/tone-0.wav", offset=9000), "radius": 0}}, "9000"),
    ({"around": {"source": dataset_source("tones/tone-0.wav", kind="file"), "radius": 0}}, "kind"),
    ({"around": {"source": NONE, "radius": 0}}, "none.wav"),
    ({"around": {"source": dataset_source(""), "radius": 0}}, "name"),
    ({"around": {"source": dataset_source(7), "radius": 0}}, "name"),
    ({"around": {"source": "tones/tone-0.wav", "radius": 0}}, "source"),
    (
        {"between": {"from": TONE, "to": NONE, "at": 0.5}},
        "none.wav",
    ),
    ({"between": {"from": TONE, "at": 0.5}}, "to"),
    (
        {"between": {"from": TONE, "to": TONE, "at": 1.5}},
        "at",
    ),
]
MESSAGES = [
    *GARBAGE,
    *((request(1, **changes), named) for changes, named in CHANGES),
    *(
        (json.dumps({"id": 1, "settings": settings(), "channels": channels}), "channels")
        for channels in (0, 3, 1.5, "1", None)
    ),
    (json.dumps({"id": 1, "settings": settings(), "more": 1}), "more"),
]


def test_garbage_gets_an_error_that_names_the_value_and_the_next_sound_is_played(server):
    rest, ends = list(enumerate(MESSAGES, 100)), []
    while rest:
        with server.connect("first") as line:
            ends += _send_until_closed(line, rest)
    # Only what is no text, or too long, ends the connection.
    assert {code for _, code in ends} <= {1003, 1007, 1009}, ends
    assert {message for message, _ in ends} <= {message[:200] for message, _ in GARBAGE}


def _send_until_closed(line, rest: list) -> list:
    """Send messages, which are taken from the list, and check the answers; return the one that closed the line."""
    from websockets.exceptions import ConnectionClosed

    while rest:
        number, (message, named) = rest.pop(0)
        try:
            error = refusal(line, message)
        except ConnectionClosed as ended:
            return [(message[:200], ended.rcvd and ended.rcvd.code)]
        assert named in error["error"], (message[:200], error)
        assert "Traceback" not in error["error"]
        assert play(line, request(number)).samples.std() > 1e-3
    return []


def test_a_message_of_many_megabytes_closes_its_own_connection_only(server):
    from websockets.exceptions import ConnectionClosed

    with server.connect("first") as other, server.connect("first") as line:
        before = server.memory()
        with pytest.raises(ConnectionClosed):
            refusal(line, "x" * 200_000_000)
        assert play(other, request(1)).samples.std() > 1e-3
        assert server.memory("VmHWM") < before + 100_000_000


def test_bytes_that_are_no_websocket_frames_do_no_harm(server):
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        head = f"GET {server.run('first', 'play')}?token={server.token} HTTP/1.1\r\nHost: {server.netloc}\r\n"
        key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + "A" * 22
        line.sendall(f"{head}{key}==\r\n\r\n".encode())
        assert line.recv(65_536).startswith(b"HTTP/1.1 101 ")
        line.sendall(b"\xff" * 5_000 + struct.pack("!BBQ", 0x82, 127, 2**62))
        with server.connect("first") as other:
            assert play(other, request(1)).samples.std() > 1e-3


BAD = [
    ("GET", "/api/runs/none", None),
    ("GET", "/api/runs/first/previews/99/sample-1", None),
    ("GET", "/api/runs/first/previews/x/sample-1", None),
    ("GET", "/api/runs/first/training?after=x", None),
    ("POST", "/api/runs/first/save", b"{"),
    ("POST", "/api/runs/first/save", b"[" * 100_000),
    ("POST", "/api/runs/first/save", {"settings": settings(), "format": "exe"}),
    ("POST", "/api/runs/first/save", {"settings": settings(), "format": "wav", "sample_rate": -1}),
    ("POST", "/api/runs/first/save", {"settings": settings(seed=-1), "format": "wav"}),
    ("POST", "/api/runs/first/shelf", {"name": "", "settings": settings(seed=-1)}),
    ("POST", "/api/runs/first/shelf", {"name": 7, "settings": settings()}),
    ("POST", "/api/runs/first/shelf", {"settings": settings()}),
    ("PUT", "/api/runs/first/shelf/none", {"name": "a"}),
    ("DELETE", "/api/runs/first/shelf/none", None),
    ("POST", "/api/runs/first/sounds?name=noise.wav", b"RIFF and no sound"),
    ("POST", "/api/runs/first/sounds", b"RIFF"),
    ("POST", "/api/runs/first/sounds?name=empty.wav", b""),
    ("DELETE", "/api/runs/first", None),
    ("PATCH", "/api/runs", b"{}"),
]


@pytest.mark.parametrize(("method", "target", "body"), BAD, ids=[f"{m} {t} {str(b)[:30]}" for m, t, b in BAD])
def test_bad_requests_get_an_error_and_change_nothing(server, runs, method, target, body):
    before = contents(runs)
    reply = server.ask(target, body, method=method)
    assert 400 <= reply.status < 500
    error = reply.json
    assert error["error"]
    assert "Traceback" not in error["error"]
    assert contents(runs) == before
