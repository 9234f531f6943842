"""A real browser for tests: Chromium, driven by Playwright."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Root may start Chromium without a sandbox only, and sounds play without a click.
_ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
_WAIT_MS = 60_000
# Of the 24 bits in which files are written.
_LEAST_STEP = 2**-22


@functools.cache
def chromium() -> str | None:
    """The path of a Chromium: one that is installed, or Playwright's own."""
    for program in _PROGRAMS:
        if path := shutil.which(program):
            return path
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


@contextmanager
def started() -> Iterator[object]:
    """A Chromium without windows. Meanwhile the event loop of Playwright runs in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser, refused: str | None = None, **options: object) -> Iterator[object]:
    """A page with an empty profile; at its end, nothing may be on its console or have been asked of another host.

    With `refused`, its console may say that requests were refused with this status, as Chromium does.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"} | options)
    context.set_default_timeout(_WAIT_MS)
    page, faults, hosts = context.new_page(), [], set()
    page.on("console", lambda line: faults.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("websocket", lambda line: hosts.add(urlsplit(line.url).netloc))
    try:
        yield page
        own = urlsplit(page.url).netloc
    finally:
        context.close()
    assert not [fault for fault in faults if refused is None or f"a status of {refused}" not in fault], faults
    assert hosts - {""} == {own}  # blobs and data have no host


def until(page, condition: str, argument: object = None) -> object:
    """Wait until an expression, or a function of `argument`, is true on the page; return its value.

    Playwright's own way evaluates it in the page, which the page's content security policy forbids.
    """
    deadline = time.monotonic() + _WAIT_MS / 1000
    while not (value := page.evaluate(condition, argument)):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)
    return value


def last_sound(page) -> np.ndarray:
    """The samples that the page played last."""
    return np.array(page.evaluate("Array.from(window.lastSound ?? [])"), dtype=np.float32)


def wait_until_ready(page) -> None:
    """Wait until a run can be played on the page."""
    page.get_by_role("button", name="Play", exact=True).wait_for()
    until(page, "document.querySelector('#command').textContent.includes('distill generate')")


def played(page, act) -> np.ndarray:
    """The first sound that is played after `act`."""
    page.evaluate("window.lastSound = null")
    act()
    until(page, "window.lastSound")
    return last_sound(page)


def command_of(page) -> str:
    """The command line that the page shows."""
    return page.locator("#command").inner_text()


def shown_sound(page, generate) -> np.ndarray:
    """The sound that was played last, once it is that of the command line that is shown, as `generate` makes it."""
    deadline, made = time.monotonic() + _WAIT_MS / 1000, {}
    while True:
        command = command_of(page)
        if command not in made:
            made[command] = generate(command)
        sound = last_sound(page)
        if sound.shape == made[command].shape and np.abs(sound - made[command]).max() <= _LEAST_STEP:
            return sound
        assert time.monotonic() < deadline, command
        page.wait_for_timeout(50)
