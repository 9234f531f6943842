"""The server of `distill play`: the page, and the interface that it uses. docs/play.md describes the interface."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.responses import JSONResponse as PlainJSONResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from distill.documents import check_table, load_json
from distill.errors import (
    AudioFileError,
    ConfigError,
    DatasetError,
    DistillError,
    NotFoundError,
    RunBusyError,
    RunError,
    StorageError,
)
from distill.faults import Key, Table
from distill.play import view, watch
from distill.play.analysis import Analyses
from distill.play.connection import Connection
from distill.play.drops import TooLargeError, receive_drop
from distill.play.engine import Engines, error_record
from distill.play.guard import Guard
from distill.play.library import Library
from distill.play.settings import locate, parse_save, parse_settings
from distill.play.shelf import Shelf
from distill.play.threads import Threads

_STATIC = Path(__file__).parent / "static"
_LARGEST_JSON = 1_000_000
# The settings of a sound take a kilobyte.
_LARGEST_MESSAGE = 1 << 16
_MOST_CONNECTIONS = 200
_STATUS: list[tuple[type[DistillError], int]] = [
    (NotFoundError, 404),
    (TooLargeError, 413),
    (DatasetError, 404),
    (ConfigError, 400),
    (AudioFileError, 400),
    (StorageError, 500),
    (RunBusyError, 409),
    (RunError, 409),
]
_MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "ogg": "audio/ogg", "mp3": "audio/mpeg"}
_KEPT = Table({"name": Key(str), "settings": Key(dict)}, others=None)
_NAMED = Table({"name": Key(str)}, others=None)

Handler = Callable[[Request, Path], Awaitable[Response]]


class JSONResponse(PlainJSONResponse):
    """JSON in ASCII: names of files may hold bytes that are no UTF-8, which Python keeps as lone surrogates."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True)
class Server:
    """What the requests share.

    Attributes
    ----------
    library : Library
        The runs.
    engines : Engines
        What makes their sounds.
    analyses : Analyses
        Analyses that are running.
    sounds : Threads
        The one thread that uses the engines.
    others : Threads
        Those for everything else that takes time.
    """

    library: Library
    engines: Engines
    analyses: Analyses
    sounds: Threads
    others: Threads

    def routes(self) -> list[BaseRoute]:
        """Return the table of what is served."""
        run = "/api/runs/{run}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", run, self._describe),
            ("GET", run + "/map", self._of_run(view.sound_map)),
            ("GET", run + "/training", self._training),
            ("GET", run + "/picture", self._picture),
            ("GET", run + "/previews/{epoch}/{sound}", self._preview),
            ("GET", run + "/sounds", self._of_run(view.sound_names)),
            ("POST", run + "/sounds", self._drop),
            ("POST", run + "/analysis", self._analyze),
            ("GET", run + "/shelf", self._of_run(lambda folder: {"sounds": Shelf(folder).sounds()})),
            ("POST", run + "/shelf", self._keep),
            ("PUT", run + "/shelf/{id}", self._rename),
            ("DELETE", run + "/shelf/{id}", self._remove),
            ("POST", run + "/save", self._save),
        ]
        return [
            Route("/", _index, methods=["GET"]),
            Route("/api/runs", self._runs, methods=["GET"]),
            *(Route(path, self._with_run(handler), methods=[method]) for method, path, handler in table),
            WebSocketRoute(run + "/play", self._play),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]

    def _with_run(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await handler(request, await self._find(request.path_params["run"]))

        return endpoint

    async def _find(self, name: str) -> Path:
        return await self.others.do(lambda: self.library.find(name))

    async def _runs(self, request: Request) -> Response:
        runs = await self.others.do(self.library.runs)
        return JSONResponse({"single": self.library.single, "runs": runs})

    def _of_run(self, work: Callable[[Path], dict[str, Any]]) -> Handler:
        async def handler(request: Request, folder: Path) -> Response:
            return JSONResponse(await self.others.do(lambda: work(folder)))

        return handler

    async def _describe(self, request: Request, folder: Path) -> Response:
        return JSONResponse(await self.others.do(lambda: view.describe(folder, self.analyses)))

    async def _training(self, request: Request, folder: Path) -> Response:
        after = _whole(request.query_params.get("after", "0"), "after")
        return JSONResponse(await self.others.do(lambda: watch.training(folder, after, self.analyses)))

    async def _picture(self, request: Request, folder: Path) -> Response:
        return Response(await self.others.do(lambda: watch.picture(folder)), media_type="image/png")

    async def _preview(self, request: Request, folder: Path) -> Response:
        epoch, sound = _whole(request.path_params["epoch"], "epoch"), request.path_params["sound"]
        content = await self.others.do(lambda: watch.preview(folder, epoch, sound))
        return Response(content, media_type="image/png" if sound == "picture" else "audio/wav")

    async def _analyze(self, request: Request, folder: Path) -> Response:
        return JSONResponse(await self.others.do(lambda: self.analyses.start(folder)), 202)

    async def _keep(self, request: Request, folder: Path) -> Response:
        values = check_table(await _json(request), _KEPT)
        settings = parse_settings(values["settings"])

        def keep() -> dict[str, Any]:
            command = settings.command(folder, partial(locate, folder))
            return Shelf(folder).add(values["name"], settings.record(), command)

        return JSONResponse(await self.others.do(keep), 201)

    async def _rename(self, request: Request, folder: Path) -> Response:
        name = check_table(await _json(request), _NAMED)["name"]
        number = request.path_params["id"]
        return JSONResponse(await self.others.do(lambda: Shelf(folder).rename(number, name)))

    async def _remove(self, request: Request, folder: Path) -> Response:
        number = request.path_params["id"]
        await self.others.do(lambda: Shelf(folder).remove(number))
        return Response(status_code=204)

    async def _save(self, request: Request, folder: Path) -> Response:
        settings, form = parse_save(await _json(request))
        content = await self.sounds.do(lambda: self.engines.of(folder).save(settings, form))
        name = quote(f"{settings.name}.{form.file_format}", safe="")
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{name}"}
        return Response(content, media_type=_MEDIA_TYPES[form.file_format], headers=headers)

    async def _drop(self, request: Request, folder: Path) -> Response:
        return JSONResponse(await receive_drop(request, folder, self.others), 201)

    async def _play(self, websocket: WebSocket) -> None:
        try:
            folder = await self._find(websocket.path_params["run"])
        except DistillError:
            await websocket.close(1008)
            return
        await Connection(websocket, partial(self.engines.of, folder), self.sounds).serve()


async def _index(request: Request) -> Response:
    return FileResponse(_STATIC / "index.html")


async def _json(request: Request) -> Any:
    """Return the JSON value in the body of a request."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > _LARGEST_JSON:
            raise TooLargeError(f"the body has more than {_LARGEST_JSON} bytes", "send the settings of one sound")
    return load_json(bytes(content))


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ConfigError([f"{name}={text[:100]!r} must be a number from 0"])
    return int(text)


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DistillError)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return JSONResponse(error_record(error), status)


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": f"{request.method} {request.url.path}: {error.detail}", "tip": None}, error.status_code
    )


def _on_fault(request: Request, error: Exception) -> Response:
    # The server shows the traceback on the terminal.
    return JSONResponse({"error": f"{type(error).__name__}: {error}", "tip": "the terminal shows more"}, 500)


def make_app(server: Server, token: str, host: str, port: int) -> ASGIApp:
    """Return the application."""
    handlers: dict[Any, Any] = {DistillError: _on_error, HTTPException: _on_http_error, Exception: _on_fault}
    return Guard(Starlette(routes=server.routes(), exception_handlers=handlers), token, host, port)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        0 for any that is free.

    Raises
    ------
    ConfigError
        If the system refuses.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        tip = "choose another --port, or leave it out" if port else "give --host an address of this machine"
        raise ConfigError([f"{host}:{port}: cannot be listened on: {error.strerror or error}"], tip) from error


def serve(
    library: Library,
    analyses: Analyses,
    listening: socket.socket,
    *,
    host: str,
    token: str,
    device: str,
    on_start: Callable[[], object],
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Parameters
    ----------
    library : Library
        The runs.
    analyses : Analyses
        Those of the library; they are cancelled at the end.
    listening : socket
        From `listen`.
    host : str
        The host that it was made for.
    token : str
        What requests have to know.
    device : str
        Device of the models.
    on_start : callable
        Called once requests are answered.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C.
    """
    server = Server(library, Engines(device), analyses, Threads(1), Threads(4))
    config = uvicorn.Config(
        make_app(server, token, host, listening.getsockname()[1]),
        # Its defaults would print each request.
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=_LARGEST_MESSAGE,
        # Samples of sound hardly become smaller.
        ws_per_message_deflate=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    try:
        _Started(config, on_start).run(sockets=[listening])
    finally:
        analyses.cancel()


class _Started(uvicorn.Server):
    """A server that says when it answers requests."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._on_start()
