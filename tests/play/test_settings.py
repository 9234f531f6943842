"""The settings of a played sound: faults are named, and the command stands for the same sound."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from distill.cli.options import GenerateArguments
from distill.cli.parsing import parse
from distill.errors import ConfigError
from distill.play.settings import parse_save, parse_settings

KICK = {"kind": "dataset", "name": "drums/kick 1.wav", "offset": 0.0}
BELL = {"kind": "dropped", "name": "-bell'.flac", "offset": 1.25}


def locate(source):
    return Path("/sounds") / source.kind / source.name


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 0, "axes": {}, "sample": {"temperature": 1}},
        {"seed": 7, "axes": {"1": 0.1, "12": -3, "3": 0}, "duration": 2.5, "sample": {"temperature": 0.3}},
        {"seed": 2**31 - 1, "axes": {"2": 1 / 3}, "around": {"source": KICK, "radius": 0}},
        {"seed": 1, "axes": {}, "duration": None, "around": {"source": BELL, "radius": 0.5}},
        {"seed": 5, "axes": {"1": 1e-7}, "between": {"from": KICK, "to": BELL, "at": 1 / 3}},
    ],
)
def test_the_command_stands_for_the_same_sound(settings):
    parsed = parse_settings(settings)
    program, command, *argv = shlex.split(parsed.command("runs/first", locate))
    arguments = parse(GenerateArguments, argv, "distill generate")
    recipe = parsed.recipe(locate)
    assert (program, command, arguments.run) == ("distill", "generate", Path("runs/first"))
    assert {name: getattr(arguments, name) for name in vars(recipe)} == vars(recipe)
    assert arguments.seed == (None if "between" in settings else settings["seed"])
    assert len(recipe.names) == 1


def test_settings_are_given_back_with_their_defaults():
    given = {
        "seed": 3,
        "axes": {"4": 1, "2": 0},
        "around": {"source": {"kind": "dataset", "name": "a.wav"}, "radius": 1},
    }
    record = json.loads(json.dumps(parse_settings(given).record()))
    assert record == {
        "seed": 3,
        "duration": None,
        "axes": {"4": 1.0},
        "around": {"source": {"kind": "dataset", "name": "a.wav", "offset": 0.0}, "radius": 1.0},
    }
    assert parse_settings(record) == parse_settings(given)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": True}, "seed=True"),
        ({"duration": 61}, "duration=61"),
        ({"duration": 0}, "duration=0"),
        ({"axes": {"0": 1}}, "axes.'0'"),
        ({"axes": {"loudness": 1}}, "axes.'loudness'"),
        ({"axes": {"1": 21}}, "axes.1=21"),
        ({"axes": {"1": "2"}}, "axes.1='2'"),
        ({"axes": [1]}, "axes=[1]"),
        ({"axes": {str(number): 1 for number in range(1, 100)}}, "99 values"),
        ({"sample": {"temperature": 21}}, "sample.temperature=21"),
        ({"sample": {}}, "sample.temperature"),
        ({"sample": {"temperature": 1, "radius": 1}}, "sample.radius"),
        ({"tempo": 1}, "tempo"),
        ({"around": {"source": KICK, "radius": 1}}, "sample and around"),
    ],
)
def test_a_fault_is_named(changes, named):
    settings = {"seed": 1, "axes": {}, "sample": {"temperature": 1.0}} | changes
    with pytest.raises(ConfigError) as caught:
        parse_settings(settings)
    assert named in str(caught.value)


@pytest.mark.parametrize("source", [None, "a.wav", {"kind": "web", "name": "a"}, {"kind": "dataset", "name": ""}, {}])
def test_a_source_that_is_none_is_named(source):
    with pytest.raises(ConfigError, match="source"):
        parse_settings({"seed": 1, "axes": {}, "around": {"source": source, "radius": 0.0}})


@pytest.mark.parametrize("value", [None, [], 1, "sample", {}, {"settings": 1}])
def test_what_holds_no_settings_is_refused(value):
    with pytest.raises(ConfigError):
        parse_settings(value)
    with pytest.raises(ConfigError):
        parse_save(value)


def test_the_form_of_a_file_is_checked():
    settings = {"seed": 1, "axes": {}, "sample": {"temperature": 1.0}}
    assert parse_save({"settings": settings})[1] == ("wav", None, None)
    with pytest.raises(ConfigError, match=r"format='aiff'.*wav"):
        parse_save({"settings": settings, "format": "aiff"})
