"""``distill play``: a page on which a trained run is played."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import webbrowser
from pathlib import Path

from distill.cli.process import Terminated, ended_by_ctrl_c, say, status_after
from distill.cli.progress import ProgressView
from distill.cli.run_options import PlayArguments
from distill.cli.signals import interrupted_by_signals
from distill.device import resolve_device
from distill.errors import ConfigError, DistillError
from distill.play.analysis import Analyses
from distill.play.library import Library
from distill.play.shelf import Shelf
from distill.play.threads import Threads
from distill.text import counted, printable

# A sound takes less; the encoding of a long file may not.
_ENDED_WITHIN_S = 2.0
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


def play(arguments: PlayArguments) -> int:
    """Run ``distill play``: until Ctrl-C."""
    try:
        with ended_by_ctrl_c():
            import websockets  # noqa: F401, PLC0415 - what the server speaks it with

            from distill.play.guard import LOCAL_HOSTS  # noqa: PLC0415 - of an extra, as the next
            from distill.play.server import listen, serve  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("distill"):
            raise
        raise ConfigError([f"distill play needs {error.name}"], "install it: pip install 'distill[play]'") from error
    resolve_device(arguments.device)
    analyses = Analyses(arguments.device)
    library = Library(arguments.run, analyses)
    host = arguments.host
    listening = listen(host, arguments.port)
    token = secrets.token_urlsafe(24)
    reached = "127.0.0.1" if host in _ANY_ADDRESS else host
    shown = f"[{reached}]" if ":" in reached else reached
    address = f"http://{shown}:{listening.getsockname()[1]}/?token={token}"
    with ProgressView() as view, interrupted_by_signals():
        if host not in LOCAL_HOSTS:
            view.line("warning: other machines can reach the page, and nothing is encrypted: for networks you trust")

        def started() -> None:
            say(address)
            say("Ctrl-C ends it")
            if host in _ANY_ADDRESS:
                say("from other machines, with the name or address of this one in place of 127.0.0.1")
            if arguments.browser and _has_display():
                # It may wait for the browser.
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        try:
            serve(
                library,
                analyses,
                listening,
                host=host,
                token=token,
                device=arguments.device,
                on_start=started,
            )
        except KeyboardInterrupt as error:
            outcome = _kept(library)
            if not Threads.end_all(_ENDED_WITHIN_S):
                say(f"interrupted; {outcome}", sys.stderr)
                os._exit(status_after(error.number if isinstance(error, Terminated) else signal.SIGINT))
            error.outcome = outcome  # type: ignore[attr-defined]
            raise
    return 0


def _has_display() -> bool:
    """Whether a browser would open a window; elsewhere it would take the terminal."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _kept(library: Library) -> str:
    """Return in words what is kept on disk."""
    shelves = {path / "shelf.json": _count(path) for path in library.paths()}
    kept = [f"{counted(count, 'sound')} in {printable(str(path))}" for path, count in shelves.items() if count]
    return "kept: " + "; ".join(kept) if kept else "no sounds were kept on a shelf"


def _count(run_dir: Path) -> int:
    """Return how many sounds are on a run's shelf; 0 if it cannot be read, which its page has said."""
    try:
        return len(Shelf(run_dir).sounds())
    except DistillError:
        return 0
