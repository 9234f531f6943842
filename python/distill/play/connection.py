"""A websocket on which a page asks for sounds: the newest request replaces one that waits."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from distill.documents import check_table, load_json
from distill.errors import ConfigError, DistillError
from distill.faults import Key, Table, between
from distill.play.engine import Engine, Reply, error_record
from distill.play.settings import Settings, Source, parse_settings, parse_source
from distill.play.threads import Threads
from distill.play.view import LONGEST_S

logger = logging.getLogger(__name__)

# Progress is told for what takes longer.
_PROGRESS_EVERY_S = 0.3
# A client that reads nothing for so long is disconnected.
_SENT_WITHIN_S = 20.0

_REQUEST = Table(
    {
        "id": Key(int, between(0, 2**53)),
        "settings": Key(dict, is_required=False),
        "original": Key(dict, is_required=False),
        "duration": Key(float | None, between(0.01, LONGEST_S), is_required=False),
        "channels": Key(int, between(1, 2), is_required=False),
    },
    others=None,
)


class _SupersededError(Exception):
    """Ends the encoding of a sound that nobody waits for any more."""


class _Request:
    """What a client asked for.

    Parameters
    ----------
    values : mapping
        The message.

    Raises
    ------
    ConfigError
        If it has faults.
    """

    def __init__(self, values: Any) -> None:
        checked = check_table(values, _REQUEST)
        if ("settings" in checked) == ("original" in checked):
            raise ConfigError(["a request must hold either settings or original"])
        self.number: int = checked["id"]
        self.both_channels = checked.get("channels", 1) == 2
        self.duration = checked.get("duration")
        self.settings: Settings | None = parse_settings(checked["settings"]) if "settings" in checked else None
        self.source: Source | None = parse_source(checked["original"]) if "original" in checked else None
        self.progress: tuple[str, int, int] | None = None
        self.is_superseded = False

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sounds that it starts from."""
        return self.settings.sources if self.settings else (self.source,) if self.source else ()

    def make(self, engine: Engine) -> Reply:
        """Make the sound; called in the thread for sounds."""
        if self.settings is not None:
            return engine.sound(self.settings, both_channels=self.both_channels, progress=self._on_progress)
        assert self.source is not None
        return engine.original(self.source, self.duration, both_channels=self.both_channels)

    def _on_progress(self, stage: str, current: int, total: int) -> None:
        if self.is_superseded:
            raise _SupersededError
        self.progress = (stage, current, total)


class Connection:
    """Answers the requests of one websocket.

    Parameters
    ----------
    socket : WebSocket
        Not accepted yet.
    find_engine : callable
        Returns the engine of the run; called in the thread for sounds.
    sounds : Threads
        The one thread that makes sounds.
    """

    def __init__(self, socket: WebSocket, find_engine: Callable[[], Engine], sounds: Threads) -> None:
        self._socket, self._find_engine, self._sounds = socket, find_engine, sounds
        self._waiting: _Request | None = None
        self._current: _Request | None = None
        self._has_request = asyncio.Event()
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Answer requests until the client is gone."""
        await self._socket.accept()
        tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._make())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (WebSocketDisconnect, TimeoutError, asyncio.TimeoutError, RuntimeError):  # gone, or it reads nothing
            pass
        finally:
            if self._current is not None:
                self._current.is_superseded = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            number = None
            try:
                values = load_json((message.get("text") or "").encode("utf-8", "surrogatepass"))
                number = values.get("id") if isinstance(values, dict) else None
                request = _Request(values)
            except ConfigError as error:
                await self._tell({"id": number if type(number) is int else None, **error_record(error)})
                continue
            current = self._current
            # What is being encoded is still wanted if it is the same sound, with other moves.
            if current is not None and current.sources != request.sources:
                current.is_superseded = True
            self._waiting = request
            self._has_request.set()

    async def _make(self) -> None:
        while True:
            await self._has_request.wait()
            self._has_request.clear()
            request, self._waiting = self._waiting, None
            if request is None:
                continue
            self._current = request
            try:
                reply, was_replaced = await self._made(request)
            except _SupersededError:
                continue
            except DistillError as error:
                await self._tell({"id": request.number, **error_record(error)})
                continue
            except Exception as error:
                logger.exception("a sound could not be made")
                text = f"the sound could not be made: {type(error).__name__}: {error}"
                await self._tell({"id": request.number, "error": text[:500], "tip": "the terminal shows more"})
                continue
            finally:
                self._current = None
            if was_replaced:
                await self._tell({"event": "changed"})
            await self._send(self._socket.send_bytes(reply.message(request.number)))

    async def _made(self, request: _Request) -> tuple[Reply, bool]:
        """Make the sound of a request, telling the progress; return it, and whether the model was replaced before."""

        def make() -> tuple[Reply, bool]:
            engine = self._find_engine()
            was_replaced = engine.refresh()
            return request.make(engine), was_replaced

        task = asyncio.ensure_future(self._sounds.do(make))
        # Nobody waits for it once the client is gone; its exception is then no news.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        told = None
        while not (await asyncio.wait([task], timeout=_PROGRESS_EVERY_S))[0]:
            if request.progress is not None and request.progress != told:
                told = request.progress
                stage, current, total = told
                progress = {"stage": stage, "current": current, "total": total}
                await self._tell({"id": request.number, "progress": progress})
        return task.result()

    async def _tell(self, values: dict[str, Any]) -> None:
        await self._send(self._socket.send_text(json.dumps(values)))

    async def _send(self, sending: Any) -> None:
        async with self._sending:
            await asyncio.wait_for(sending, _SENT_WITHIN_S)
