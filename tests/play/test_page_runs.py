"""The page of ``distill play`` with several runs: the list, analysis, replaced weights, training; who can use it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from browsing import command_of, opened, played, shown_sound, until, wait_until_ready
from distill.runs.folder import RunFolder
from playing import Server, generated

pytestmark = [
    pytest.mark.needs("starlette", "uvicorn", "websockets", "playwright", "chromium"),
    pytest.mark.usefixtures("one_thread"),
]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def several(runs: Path, tmp_path_factory) -> Path:
    """A folder of runs: one that is analysed, one that is not, and copies to change."""
    folder = tmp_path_factory.mktemp("several") / "runs"
    for name, source in {"first": "first", "second": "second", "replaced": "first", "training": "first"}.items():
        shutil.copytree(runs / source, folder / name)
    return folder


@pytest.fixture(scope="module")
def player(several: Path):
    with Server(several) as server:
        yield server


@pytest.fixture
def page(browser, player):
    with opened(browser) as page:
        page.goto(player.address)
        yield page


@pytest.fixture
def generate(run, tmp_path):
    return lambda command: generated(command, run, tmp_path)[0]


def open_run(page, name: str) -> None:
    page.locator("#run-list").get_by_text(name, exact=True).first.click()
    wait_until_ready(page)


def button(page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def test_all_runs_are_listed_and_each_plays(page, generate):
    items = page.locator("#run-list > *")
    items.first.wait_for()
    assert items.count() == 4
    for name in ("first", "second"):
        open_run(page, name)
        played(page, button(page, "Play").click)
        shown_sound(page, generate)
        assert f"/{name} " in command_of(page)
        page.locator("#to-runs").click()
        items.first.wait_for()


def test_a_run_without_an_analysis_offers_it(page, several, generate):
    open_run(page, "second")
    assert page.locator("#axes input[type=range]").count() == 0
    button(page, "Analyse").click()
    slider = page.locator("#axes input[type=range]").first
    slider.wait_for()
    names = json.loads((several / "second" / "latent" / "analysis.json").read_text())["names"]
    assert slider.get_attribute("aria-label") == names[0]
    played(page, lambda: slider.fill("2"))
    shown_sound(page, generate)
    assert "--axis 1=2" in command_of(page)
    until(page, "window.soundMap && window.soundMap.pixelOf(0)")


def test_replaced_weights_are_noticed(page, several, runs, generate):
    open_run(page, "replaced")
    played(page, button(page, "Play").click)
    before = shown_sound(page, generate)
    for name in ("model.json", "model.safetensors"):
        new = several / "replaced" / f"{name}.new"
        shutil.copy(runs / "second" / name, new)
        new.replace(several / "replaced" / name)
    until(page, "document.querySelector('[role=status]').textContent.trim()")
    until(page, "/analy/i.test(document.querySelector('#no-analysis').innerText)")
    played(page, button(page, "Play").click)
    after = shown_sound(page, generate)
    assert before.shape == after.shape
    assert not np.allclose(before, after, atol=1e-3)


def test_a_run_that_trains_shows_its_curves_and_plays_its_previews(page, several):
    folder = RunFolder(several / "training")
    last = folder.metrics()[-1]
    open_run(page, "training")
    with folder.lock():
        for epoch in range(last["epoch"] + 1, last["epoch"] + 4):
            folder.append_metrics(last | {"epoch": epoch, "val_loss": last["val_loss"] / epoch})
        panel = page.locator("#training")
        panel.get_by_text(str(last["epoch"] + 3)).first.wait_for()
        for canvas in ("loss", "quality"):
            assert _is_drawn(page, canvas)
        epoch = last["epoch"] + 3
        preview = several / "training" / "previews" / f"epoch-{epoch:03d}"
        shutil.copytree(several / "training" / "previews" / "epoch-001", several / "copy").rename(preview)
        sound = panel.locator(f"[data-epoch='{epoch}']").get_by_role("button").filter(has_text="sample").first
        sound.wait_for()
        samples = played(page, sound.click)
    written, _ = soundfile.read(preview / "sample-1.wav", dtype="float32")
    assert samples.shape == written.shape
    assert samples @ written / np.linalg.norm(samples) / np.linalg.norm(written) > 0.999


def _is_drawn(page, canvas: str) -> bool:
    return page.evaluate(
        """name => { const canvas = document.getElementById(name), size = [canvas.width, canvas.height];
        const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, ...size).data.buffer);
        return new Set(pixels).size > 2; }""",
        canvas,
    )


LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 380, "height": 800}, "has_touch": True, "is_mobile": True},
}


@pytest.mark.needs("axe_core_python")
@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_no_violation_and_nothing_is_wider_than_the_window(browser, player, look):
    from axe_core_python.sync_playwright import Axe

    with opened(browser, **LOOKS[look]) as page:
        page.goto(player.address)
        page.locator("#run-list > *").first.wait_for()
        _is_accessible(page, Axe)
        for name in ("first", "training"):
            open_run(page, name)
            played(page, button(page, "Play").click)
            page.get_by_role("radio", name="From A to B").check(force=True)
            _is_accessible(page, Axe)
            page.get_by_role("radio", name="A sound").check(force=True)
            button(page, "More axes").click()
            _is_accessible(page, Axe)
            page.locator("#to-runs").click()


def _is_accessible(page, axe) -> None:
    found = axe().run(page)
    assert found["passes"]
    violations = [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found["violations"]]
    assert not violations, violations
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_screenshot_of_the_readme(browser, trained, tmp_path, request):
    """Written to docs with ``--screenshot RUN``; otherwise only tried."""
    run = request.config.getoption("--screenshot")
    path = ROOT / "docs" / "play.png" if run else tmp_path / "play.png"
    with Server(run or trained) as server, opened(browser) as page:
        page.goto(server.address)
        wait_until_ready(page)
        until(page, "window.soundMap && window.soundMap.pixelOf(0)")
        name = server.ask("/api/runs").json["runs"][0]["name"]
        onsets = server.ask(server.run(name, "map")).json["features"]["onset_strength"]["values"]
        pixel = page.evaluate("number => window.soundMap.pixelOf(number)", int(np.argmax(onsets)))
        played(page, lambda: page.mouse.click(pixel["x"], pixel["y"]))
        sliders = page.locator("#axes input[type=range]")
        for number, value in enumerate(("1.4", "-0.8")):
            played(page, lambda number=number, value=value: sliders.nth(number).fill(value))
        page.mouse.move(0, 0)
        page.screenshot(path=path, animations="disabled", caret="hide")
    content = path.read_bytes()
    width, height = (int.from_bytes(content[place : place + 4], "big") for place in (16, 20))
    assert (width, height) == (1280, 800)
    assert len(content) < 300_000
