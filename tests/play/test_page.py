"""The page of ``distill play`` in a real browser: sliders, the map, files, and the shelf, by mouse and by keyboard."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from browsing import command_of, last_sound, opened, played, shown_sound, until, wait_until_ready
from distill.runs.folder import RunFolder
from instruments import pitch_of
from playing import Server, generated
from sounds import RATE, sine, write

pytestmark = [
    pytest.mark.needs("starlette", "uvicorn", "websockets", "playwright", "chromium"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def own_run(trained: Path, tmp_path_factory) -> Path:
    return shutil.copytree(trained, tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def player(own_run: Path):
    with Server(own_run) as server:
        yield server


@pytest.fixture
def page(browser, player):
    with opened(browser) as page:
        page.goto(player.address)
        wait_until_ready(page)
        yield page


@pytest.fixture
def generate(run, tmp_path) -> Callable[[str], np.ndarray]:
    """The samples that a command line writes."""
    return lambda command: generated(command, run, tmp_path)[0]


@pytest.fixture(scope="module")
def axes(player) -> list[dict]:
    return player.ask("/api/runs/run").json["axes"]


def slider(page, name: str):
    return page.get_by_role("slider", name=name, exact=True)


def button(page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def moves_of(page) -> dict[int, float]:
    """The moves along axes in the command line."""
    words = shlex.split(command_of(page))
    pairs = [words[place + 1].split("=") for place, word in enumerate(words) if word == "--axis"]
    return {int(number): float(value) for number, value in pairs}


def value_of(page, option: str) -> str:
    words = shlex.split(command_of(page))
    return words[words.index(option) + 1]


MEASURES = {
    "rms": lambda sound: np.sqrt(np.mean(sound**2)),
    "spectral_centroid": lambda sound: np.average(
        np.arange(len(sound) // 2 + 1), weights=np.abs(np.fft.rfft(sound)) ** 2
    ),
}


def test_a_slider_moves_what_its_axis_is_named_after(page, axes, generate):
    """From the average sound, in the direction of the correlation of the axis that is correlated best."""
    correlations = [(axis["name"], *pair) for axis in axes[:6] for pair in axis["correlations"].items()]
    name, feature, r = max((row for row in correlations if row[1] in MEASURES), key=lambda row: abs(row[2]))
    slider(page, "Temperature").fill("0")
    low, high = axes[[axis["name"] for axis in axes].index(name)]["low"], 0
    high = next(axis["high"] for axis in axes if axis["name"] == name)
    measured = []
    for value in (low, high):
        played(page, lambda value=value: slider(page, name).fill(f"{value:.1f}"))
        measured.append(MEASURES[feature](shown_sound(page, generate)))
    assert np.sign(measured[1] - measured[0]) == np.sign(r)
    assert max(measured) > 1.05 * min(measured)


def test_the_sound_follows_a_drag_and_the_latest_move_wins(browser, player, axes, generate):
    with opened(browser) as page:
        page.add_init_script("""let last; window.heard = []; Object.defineProperty(window, "lastSound",
            {get: () => last, set: sound => { last = sound; window.heard.push(sound); }})""")
        page.goto(player.address)
        wait_until_ready(page)
        played(page, button(page, "Play").click)
        page.evaluate("window.heard.length = 0")
        box = slider(page, axes[0]["name"]).bounding_box()
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        for share in np.concatenate([np.linspace(0.5, 0.05, 60), np.linspace(0.05, 0.9, 120)]):
            page.mouse.move(box["x"] + share * box["width"], y)
        while_held = until(page, "window.heard.length > 1 && window.heard.length")
        page.mouse.up()
        sound = shown_sound(page, generate)
        assert moves_of(page)[1] > 1
        assert moves_of(page)[1] == float(slider(page, axes[0]["name"]).input_value())
        count = page.evaluate("window.heard.length")
        assert while_held <= count <= 181
        assert sound.std() > 1e-3
        page.wait_for_timeout(500)  # what is late is dropped
        assert np.array_equal(last_sound(page), sound)


def test_a_dot_of_the_map_plays_the_sound_as_the_model_makes_it_and_its_original(page, player, own_run, generate):
    dots = player.ask("/api/runs/run/map").json
    number, pixel = _dot(page, len(dots["file"]))
    name, offset = dots["files"][dots["file"][number]], dots["offset"][number]
    played(page, lambda: page.mouse.click(pixel["x"], pixel["y"]))
    file = RunFolder(own_run).dataset().path / name
    sound = shown_sound(page, generate)
    assert value_of(page, "--around") == str(file)
    assert ("--offset" in command_of(page)) == (offset > 0)

    page.keyboard.down("Shift")
    original = played(page, lambda: page.mouse.click(pixel["x"], pixel["y"]))
    page.keyboard.up("Shift")
    _is_a_part_of(original, file, offset)
    assert not np.array_equal(original, sound)
    assert button(page, "Original").get_attribute("aria-pressed") == "true"

    again = played(page, button(page, "Original").click)
    assert button(page, "Original").get_attribute("aria-pressed") == "false"
    assert np.array_equal(again, sound)
    assert np.array_equal(played(page, lambda: page.keyboard.press("b")), original)


def _dot(page, count: int, after: int = -1) -> tuple[int, dict]:
    """The first dot in view that no other one covers."""
    until(page, "window.soundMap && window.soundMap.pixelOf(0) !== undefined")
    page.locator("#map").scroll_into_view_if_needed()
    pixels = [page.evaluate("number => window.soundMap.pixelOf(number)", number) for number in range(count)]
    places = np.array([[pixel["x"], pixel["y"]] if pixel else [np.inf, np.inf] for pixel in pixels])
    for number in range(after + 1, count):
        if pixels[number]:
            distances = np.abs(places - places[number]).max(axis=1)
            if np.count_nonzero(~(distances > 12)) == 1:
                return number, pixels[number]
    raise AssertionError("no dot stands alone")


def _is_a_part_of(sound: np.ndarray, file: Path, offset: float) -> None:
    """A sound is what soundfile reads from there, up to a gain and the end, which may be faded or padded."""
    samples, rate = soundfile.read(file, dtype="float32")
    samples = soxr.resample(samples, rate, RATE)
    samples = samples[round(offset * RATE) :][: len(sound)]
    sound = sound[: len(samples)]
    cosine = sound @ samples / np.linalg.norm(sound) / np.linalg.norm(samples)
    assert len(samples) > 0.25 * RATE
    assert cosine > 0.999


def test_dragging_on_the_map_plays_what_lies_between_the_dots(page, player, generate):
    count = len(player.ask("/api/runs/run/map").json["file"])
    number, start = _dot(page, count)
    _, end = _dot(page, count, number)
    played(page, lambda: page.mouse.click(start["x"], start["y"]))
    at_dot = shown_sound(page, generate)
    page.mouse.move(start["x"], start["y"])
    page.mouse.down()
    for share in np.linspace(0, 0.4, 20):
        page.mouse.move(*(float((1 - share) * start[side] + share * end[side]) for side in "xy"))
    page.mouse.up()
    sound = shown_sound(page, generate)
    assert not np.array_equal(sound, at_dot)
    assert "--around" in command_of(page)
    assert {1, 2} & moves_of(page).keys()


@pytest.mark.parametrize("how", ["dropped", "chosen"])
def test_a_file_is_encoded_and_played(page, own_run, generate, tmp_path, how):
    pitch, rate = (220.0, RATE) if how == "dropped" else (440.0, 44_100)
    content = write(tmp_path / f"{how}.wav", sine(pitch, 0.9, rate), rate, "PCM_16").read_bytes()
    put = _drop if how == "dropped" else _choose
    played(page, lambda: put(page, f"{how}.wav", content))
    sound = shown_sound(page, generate)
    assert abs(pitch_of(sound) - pitch) < 20
    file = Path(value_of(page, "--around"))
    assert file.parent == own_run / "dropped"
    assert file.read_bytes() == content
    assert how in file.name
    original = played(page, button(page, "Original").click)
    _is_a_part_of(original, file, 0)


def _drop(page, name: str, content: bytes) -> None:
    transfer = page.evaluate_handle(
        """([name, content]) => { const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(content)], name, {type: "audio/wav"})); return transfer; }""",
        [name, list(content)],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("body", kind, {"dataTransfer": transfer})


def _choose(page, name: str, content: bytes) -> None:
    page.get_by_role("radio", name="A sound").check(force=True)
    page.get_by_label("Choose a file").set_input_files({"name": name, "mimeType": "audio/wav", "buffer": content})


def test_a_file_that_is_no_sound_is_an_error_and_the_page_plays_on(browser, player, generate):
    with opened(browser, refused="400") as page:
        page.goto(player.address)
        wait_until_ready(page)
        _drop(page, "notes.wav", b"these are no samples")
        page.get_by_role("alert").get_by_text("notes").wait_for()
        played(page, button(page, "Random").click)
        assert shown_sound(page, generate).std() > 1e-3


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_a_saved_file_is_that_of_the_command(page, axes, run, tmp_path, kind):
    played(page, lambda: slider(page, axes[0]["name"]).fill("1.3"))
    page.get_by_label("Format").select_option(kind)
    with page.expect_download() as download:
        button(page, "Save").click()
    saved = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename.endswith(f".{kind}")
    command = command_of(page)
    assert (kind == "wav") or f"--format {kind}" in command
    samples, content = generated(command, run, tmp_path)
    assert saved == content
    assert samples.std() > 1e-3


def test_the_command_is_copied(browser, player):
    with opened(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(player.address)
        wait_until_ready(page)
        button(page, "Copy command").click()
        page.get_by_role("status").get_by_text(re.compile("cop", re.IGNORECASE)).wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == command_of(page)


def test_what_is_undone_can_be_done_again(page, axes, generate):
    name = axes[1]["name"]
    heard = []
    for value in ("1", "2"):
        played(page, lambda value=value: slider(page, name).fill(value))
        heard.append(shown_sound(page, generate))
    assert np.array_equal(played(page, button(page, "Undo").click), heard[0])
    assert slider(page, name).input_value() == "1"
    assert moves_of(page) == {2: 1}
    assert np.array_equal(played(page, button(page, "Redo").click), heard[1])
    assert moves_of(page) == {2: 2}
    page.locator("#map").focus()
    assert np.array_equal(played(page, lambda: page.keyboard.press("Control+z")), heard[0])
    assert np.array_equal(played(page, lambda: page.keyboard.press("Control+Shift+Z")), heard[1])
    button(page, f"Reset {name}").click()
    until(page, "!document.querySelector('#command').textContent.includes('--axis')")


def test_a_kept_sound_is_on_the_shelf_after_a_reload(page, own_run, axes, generate):
    played(page, button(page, "Random").click)
    played(page, lambda: slider(page, axes[2]["name"]).fill("-1.5"))
    sound, command = shown_sound(page, generate), command_of(page)
    page.get_by_label("Name for the shelf").fill("a <b>kept</b> sound")
    button(page, "Keep").click()
    item = page.locator("#shelf").get_by_text("a <b>kept</b> sound").first
    item.wait_for()
    kept = json.loads((own_run / "shelf.json").read_text("utf-8"))["sounds"][-1]
    assert kept["name"] == "a <b>kept</b> sound"
    assert shlex.split(command)[: len(shlex.split(kept["command"]))] == shlex.split(kept["command"])
    page.reload()
    wait_until_ready(page)
    item.wait_for()
    assert np.array_equal(played(page, item.click), sound)
    assert command_of(page) == command


def test_a_seed_makes_the_same_sound_again(page, generate):
    seed = page.get_by_label("Seed")
    heard = []
    for value in ("123", None, "123"):
        played(page, lambda v=value: (seed.fill(v), seed.press("Enter")) if v else button(page, "Random").click())
        heard.append(shown_sound(page, generate))
        assert value_of(page, "--seed") == seed.input_value()
    assert np.array_equal(heard[0], heard[2])
    assert not np.array_equal(heard[0], heard[1])


def test_values_can_be_typed(page, axes, generate):
    name = axes[0]["name"]
    row = page.locator("#axes").locator("> *", has=slider(page, name)).first
    row.get_by_role("button").filter(has_not_text=re.compile("Reset")).first.dblclick()
    field = page.get_by_role("spinbutton", name=f"{name}, value")
    field.fill("1.234")
    played(page, lambda: field.press("Enter"))
    shown_sound(page, generate)
    assert moves_of(page) == {1: 1.234}
    duration = page.get_by_label("Duration")
    duration.fill("0.75")
    played(page, lambda: duration.press("Enter"))
    assert len(shown_sound(page, generate)) == round(0.75 * RATE)


def test_a_sound_between_two_others(page, generate):
    page.get_by_role("radio", name="From A to B").check(force=True)
    for label, name in (("Sound A", "tones/tone-0.wav"), ("Sound B", "tones/tone-3.wav")):
        page.get_by_label(label, exact=True).fill(name)
        page.get_by_label(label, exact=True).press("Enter")
    pitches = []
    for position in ("0", "1"):
        played(page, lambda position=position: slider(page, "Position from A to B").fill(position))
        pitches.append(pitch_of(shown_sound(page, generate)))
        assert float(value_of(page, "--at")) == float(position)
    assert pitches == pytest.approx([220, 220 * 2**1.5], abs=25)


def test_more_axes_and_both_channels(page, axes, generate):
    assert page.locator("#axes input[type=range]:visible").count() == 6
    button(page, "More axes").click()
    name = axes[7]["name"]
    played(page, lambda: slider(page, name).fill("2"))
    shown_sound(page, generate)
    assert moves_of(page) == {8: 2}
    picture = page.locator("#spectrogram").screenshot()
    page.get_by_role("checkbox", name="Both channels").check(force=True)
    page.wait_for_timeout(500)
    assert page.locator("#spectrogram").screenshot() != picture


def test_the_keyboard_alone_is_enough(page, axes, own_run, generate):
    press = page.keyboard.press
    played(page, lambda: press("Space"))
    first = shown_sound(page, generate)
    played(page, lambda: press("r"))
    assert not np.array_equal(shown_sound(page, generate), first)
    _tab_to(page, axes[0]["name"])
    for _ in range(5):
        press("ArrowRight")
    played(page, lambda: press("ArrowRight"))
    shown_sound(page, generate)
    assert moves_of(page)[1] > 0
    _tab_to(page, "map")
    press("ArrowRight")
    played(page, lambda: press("Enter"))
    assert "--around" in command_of(page)
    sound = shown_sound(page, generate)
    played(page, lambda: press("b"))
    assert not np.array_equal(last_sound(page), sound)
    played(page, lambda: press("b"))
    assert np.array_equal(last_sound(page), sound)
    before = page.locator("#shelf li").count()
    press("k")
    until(page, "before => document.querySelectorAll('#shelf li').length > before", before)
    with page.expect_download() as download:
        press("s")
    assert Path(download.value.path()).read_bytes()[:4] == b"RIFF"
    played(page, lambda: press("Control+z"))


def _tab_to(page, name: str) -> None:
    """Press Tab until an element with this id or name has the focus."""
    for _ in range(150):
        page.keyboard.press("Tab")
        if name in page.evaluate("[document.activeElement.id, document.activeElement.name]"):
            return
    raise AssertionError(f"Tab does not lead to {name}")
