"""Who may ask ``distill play`` for what: token, host and origin."""

from __future__ import annotations

import pytest

from playing import Server, contents, play, request, settings

pytestmark = pytest.mark.needs("starlette", "uvicorn", "websockets")

EVIL = "evil.example"

TARGETS = [
    ("GET", "/api/runs", None),
    ("GET", "/api/runs/first", None),
    ("GET", "/api/runs/first/map", None),
    ("GET", "/api/runs/first/sounds", None),
    ("POST", "/api/runs/first/sounds?name=a.wav", b"RIFF"),
    ("GET", "/api/runs/first/picture", None),
    ("GET", "/api/runs/first/previews/1/sample-1", None),
    ("GET", "/api/runs/first/training?after=0", None),
    ("POST", "/api/runs/first/analysis", b""),
    ("GET", "/api/runs/first/shelf", None),
    ("POST", "/api/runs/first/shelf", {"name": "a", "settings": settings()}),
    ("PUT", "/api/runs/first/shelf/1", {"name": "b"}),
    ("DELETE", "/api/runs/first/shelf/1", None),
    ("POST", "/api/runs/first/save", {"settings": settings(), "format": "wav"}),
    ("GET", "/api/nothing", None),
]


@pytest.mark.parametrize(("method", "target", "body"), TARGETS, ids=[f"{m} {t}" for m, t, _ in TARGETS])
def test_nothing_of_the_interface_is_given_without_the_token(server, runs, method, target, body):
    before = contents(runs)
    others = [None, "", "wrong", server.token[:-1], server.token + "a", server.token.swapcase(), "é"]
    for token in others:
        joint = "&" if "?" in target else "?"
        for reply in (
            server.ask(target, body, method=method, token=None, headers={"Authorization": f"Bearer {token}"}),
            server.ask(target + f"{joint}token={token}".replace("é", "%C3%A9"), body, method=method, token=None),
            server.ask(target, body, method=method, token=None, headers={"Cookie": f"token={server.token}"}),
        ):
            assert reply.status == 403, (token, reply.body)
            assert "token" in reply.json["error"]
    assert contents(runs) == before


def test_the_token_is_taken_from_the_address_or_a_header(server):
    names = [run["name"] for run in server.ask("/api/runs").json["runs"]]
    assert sorted(names) == ["first", "second"]
    reply = server.ask(f"/api/runs?token={server.token}", token=None)
    assert [run["name"] for run in reply.json["runs"]] == names
    assert len(server.token) >= 20
    assert "set-cookie" not in reply.headers


def test_each_server_has_its_own_token(server, runs):
    with Server(runs / "first") as other:
        assert other.token != server.token
        assert server.ask("/api/runs", token=other.token).status == 403
        assert other.ask("/api/runs").json["single"] is True


HOSTS = [EVIL, f"{EVIL}:PORT", "127.0.0.1.evil.example:PORT", "127.0.0.1@evil.example", "127.0.0.1:1", ""]
ORIGINS = [f"http://{EVIL}", f"http://{EVIL}:PORT", "http://127.0.0.1:1", "https://127.0.0.1:PORT", "null", "http://"]


@pytest.mark.parametrize("host", HOSTS)
def test_another_host_is_refused_so_that_names_cannot_be_rebound(server, host):
    host = host.replace("PORT", str(server.port))
    for target in ("/", f"/?token={server.token}", "/api/runs"):
        reply = server.ask(target, headers={"Host": host})
        assert reply.status in (400, 403), target
        assert server.token.encode() not in reply.body


@pytest.mark.parametrize("origin", ORIGINS)
def test_another_origin_is_refused_even_with_the_token(server, runs, origin):
    origin, before = origin.replace("PORT", str(server.port)), contents(runs)
    for method, target, body in TARGETS:
        reply = server.ask(target, body, method=method, headers={"Origin": origin})
        assert reply.status == 403, target
        assert "access-control-allow-origin" not in reply.headers
    assert contents(runs) == before
    assert server.ask("/api/runs", headers={"Origin": f"http://{server.netloc}"}).status == 200


def test_a_preflight_of_another_origin_allows_nothing(server):
    headers = {"Origin": f"http://{EVIL}", "Access-Control-Request-Method": "POST"}
    reply = server.ask("/api/runs/first/save", method="OPTIONS", headers=headers, token=None)
    assert reply.status >= 400
    assert not [name for name in reply.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "options",
    [
        {"token": None},
        {"token": "wrong"},
        {"origin": f"http://{EVIL}"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"additional_headers": {"Host": EVIL}},
    ],
    ids=str,
)
def test_a_websocket_needs_token_host_and_origin_too(server, options):
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as caught, server.connect("first", **options):
        pass
    assert caught.value.response.status_code in (400, 403)
    with server.connect("first", origin=f"http://{server.netloc}") as line:
        assert play(line, request(1)).samples.std() > 1e-3


def test_the_page_may_load_nothing_from_elsewhere(server):
    reply = server.ask(f"/?token={server.token}", token=None)
    assert (reply.status, reply.headers.get_content_type()) == (200, "text/html")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert f"connect-src 'self' ws://{server.netloc}" in policy
