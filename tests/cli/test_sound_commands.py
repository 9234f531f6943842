"""``distill reconstruct`` and ``distill generate``: files, output and exit status."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.generate.generation import generate
from distill.generate.recipe import Recipe
from distill.generate.reconstruction import reconstruct
from distill.models import load_model
from distill.storage import MARK_NAME
from distill.training import train
from instruments import PITCHES, pitch_of, tones, write_run
from sounds import CHUNK, RATE, noise, one_object, sine, write

GENERATE_KEYS = [
    *("duration_s", "files", "gains", "held_db", "limited", "limited_db", "sample_rate", "seconds", "seed", "settings")
]
RECONSTRUCT_KEYS = sorted({*GENERATE_KEYS, "originals", "partial", "pictures", "skipped", "sources"} - {"duration_s"})
CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def tone_run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("tones") / "run", tones())


@pytest.fixture
def tone(tmp_path) -> Path:
    return write(tmp_path / "in" / "tone.wav", sine(PITCHES[3], 1.3, level=0.3))


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder and their bytes, without the mark of distill."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MARK_NAME}


def test_reconstruct_json(run, tone_run, tone, tmp_path):
    other = write(tmp_path / "in" / "other.flac", 0.8 * sine(PITCHES[5], 0.5, 22_050), 22_050, "PCM_24")
    result = one_object(*run("reconstruct", tone_run, tone, other, "--out", tmp_path / "out", "--json", *CPU))
    assert sorted(result) == RECONSTRUCT_KEYS
    assert result["files"] == [str(tmp_path / "out" / name) for name in ("tone.wav", "other.wav")]
    assert result["sources"] == [str(tone), str(other)]
    assert result["gains"] == [1, 1]
    assert (result["sample_rate"], result["skipped"]) == (RATE, [])
    assert result["settings"]["format"] == "wav"
    for picture in result["pictures"]:
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
    for file, pitch, seconds, peak in zip(result["files"], PITCHES[3:6:2], (1.3, 0.5), (0.3, 0.4), strict=True):
        samples, rate = soundfile.read(file)
        assert (rate, len(samples)) == (RATE, round(seconds * RATE))
        assert soundfile.info(file).subtype == "PCM_24"
        assert abs(pitch_of(samples, rate) - pitch) < 5
        assert samples.std() == pytest.approx(peak / np.sqrt(2), rel=0.1)
    names = [f"{name}{end}" for name in ("other", "tone") for end in (" (original).wav", ".png", ".wav")]
    assert sorted(contents(tmp_path / "out")) == names


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_reconstructions_lie_beside_their_originals_in_the_form_that_is_asked_for(run, tone_run, tmp_path, kind):
    """The original is mono, at its own level, even if that is close to full scale."""
    left = sine(PITCHES[3], 1.0, 22_050, level=0.99)
    source = write(tmp_path / "in" / "tone.wav", np.stack([left, left], axis=1), 22_050)
    argv = ("reconstruct", tone_run, source, "--out", tmp_path / "out", "--format", kind, "--sample-rate", 32_000, *CPU)
    result = one_object(*run(*argv, "--json"))
    assert result["sample_rate"] == 32_000
    assert result["files"] == [str(tmp_path / "out" / f"tone.{kind}")]
    assert result["originals"] == [str(tmp_path / "out" / f"tone (original).{kind}")]
    for path in (*result["files"], *result["originals"]):
        info = soundfile.info(path)
        assert (info.format, info.samplerate, info.channels, info.frames) == (kind.upper(), 32_000, 1, 32_000)
        assert abs(pitch_of(soundfile.read(path)[0], 32_000) - PITCHES[3]) < 5
    inner = soundfile.read(result["originals"][0])[0][3_200:-3_200]
    assert inner.std() == pytest.approx(0.99 / np.sqrt(2), rel=0.01)


def test_names_of_originals_and_of_other_sounds_do_not_collide(run, tone_run, tmp_path):
    paths = [
        write(tmp_path / "in" / name, sine(pitch, 0.5))
        for name, pitch in zip(("kick.wav", "Kick (Original).wav", "x" * 250 + ".wav"), PITCHES, strict=False)
    ]
    result = one_object(*run("reconstruct", tone_run, *paths, "--out", tmp_path / "out", "--json", *CPU))
    written = [Path(path).name for path in result["files"] + result["originals"]]
    assert written[:2] == ["kick.wav", "Kick (Original)-2.wav"]
    assert written[3:5] == ["kick (original).wav", "Kick (Original)-2 (original).wav"]
    assert max(map(len, written)) == 255
    for pair in (result["files"], result["originals"]):
        for path, pitch in zip(pair, PITCHES, strict=False):
            assert abs(pitch_of(soundfile.read(path)[0]) - pitch) < 5


def test_reconstruct_in_words(run, tone_run, tone, tmp_path):
    code, out, err = run("reconstruct", tone_run, tone, "--out", tmp_path / "out", *CPU)
    assert (code, err) == (0, "")
    assert str(tmp_path / "out" / "tone.wav") in out
    assert "1 sound in" in out
    assert "clipping" not in out


def test_reconstruct_skips_files_that_cannot_be_used(run, tone_run, tone, tmp_path):
    text, zeros = tmp_path / "text.wav", write(tmp_path / "zeros.wav", np.zeros(CHUNK))
    text.write_text("no sound")
    argv = ("reconstruct", tone_run, text, zeros, tmp_path / "none.wav", tone, "--out", tmp_path / "out", *CPU)
    code, out, err = run(*argv, "--json")
    result = one_object(code, out, err)
    assert [Path(path).name for path in result["files"]] == ["tone.wav"]
    assert [entry["path"] for entry in result["skipped"]] == [str(text), str(zeros), str(tmp_path / "none.wav")]
    assert [entry["reason"] for entry in result["skipped"]][1:] == [
        "silent throughout: mixed to mono, nothing in it is above -60 dBFS",
        "no such file",
    ]
    assert f"{text}: not an audio file" in err
    code, out, err = run("reconstruct", tone_run, text, zeros, "--out", tmp_path / "other", *CPU)
    assert code == 1
    assert "no sound can be reconstructed" in err
    # Each is named once, and the tip is for both.
    assert [(out + err).count(f"{path}: ") for path in (text, zeros)] == [1, 1]
    assert re.search(r"^tip: .*WAV, FLAC.*; .*can be heard", err, re.MULTILINE)


def test_reconstruct_warns_of_a_faint_sound(run, tone_run, tmp_path):
    source = write(tmp_path / "faint.wav", sine(PITCHES[3], 1.0, level=5e-4), subtype="PCM_24")
    code, out, _ = run("reconstruct", tone_run, source, "--out", tmp_path / "out", *CPU)
    assert code == 0
    assert f"warning: {source}: mixed to mono, nothing in it is above -60 dBFS" in out


def test_reconstruct_numbers_files_of_the_same_name(run, tone_run, tone, tmp_path):
    paths = [
        write(tmp_path / name, sine(pitch, 0.5))
        for name, pitch in zip(("a/Tone.wav", "tone-2.wav"), PITCHES, strict=False)
    ]
    result = one_object(*run("reconstruct", tone_run, tone, *paths, tone, "--out", tmp_path / "out", "--json", *CPU))
    assert [Path(path).name for path in result["files"]] == ["tone.wav", "Tone-2.wav", "tone-2-2.wav", "tone-3.wav"]
    assert abs(pitch_of(soundfile.read(result["files"][1])[0]) - PITCHES[0]) < 5
    _, out, _ = run("reconstruct", tone_run, tone, *paths, "--out", tmp_path / "other", *CPU)
    folder = tmp_path / "other"
    assert (
        f"  {folder}/tone.wav\n  {folder}/Tone-2.wav, from {paths[0]}\n  {folder}/tone-2-2.wav, from {paths[1]}\n"
        in out
    )


@pytest.mark.parametrize("level", [0.1, 0.8])
def test_reconstruct_keeps_the_level_of_a_sound_with_a_higher_peak(run, tone_run, tmp_path, level):
    sound = sine(PITCHES[3], 1.3, level=0.25 * level)
    sound[10_000] = level
    source = write(tmp_path / "click.wav", sound)
    result = one_object(*run("reconstruct", tone_run, source, "--out", tmp_path / "out", "--json", *CPU))
    samples, _ = soundfile.read(result["files"][0])
    assert abs(pitch_of(samples[:8_000]) - PITCHES[3]) < 5
    assert samples[:8_000].std() == pytest.approx(sound[:8_000].std(), rel=0.05)


@pytest.mark.parametrize("normalize", ["chunk", "none"])
def test_reconstruct_keeps_the_levels_within_a_sound(run, tone, tmp_path, normalize):
    made = write_run(
        tmp_path / "run", tones(levels=(1.0,) if normalize == "chunk" else (0.1, 0.5, 1.0)), normalize=normalize
    )
    sound = sine(PITCHES[2], 3.0, level=0.8)
    sound[: RATE + RATE // 2] *= 0.125
    source = write(tmp_path / "steps.wav", sound)
    result = one_object(*run("reconstruct", made, source, "--out", tmp_path / "out", "--json", *CPU))
    samples, _ = soundfile.read(result["files"][0])
    quiet, loud = samples[RATE // 4 : RATE].std(), samples[2 * RATE : 5 * RATE // 2].std()
    assert 0.06 < quiet / loud < 0.25


def test_reconstruct_never_replaces_its_sources(run, tone_run, tone):
    before = contents(tone.parent)
    code, _, err = run("reconstruct", tone_run, tone, "--out", tone.parent, "--force", *CPU)
    assert code == 2
    assert f"{tone}: is one of the sounds to reconstruct" in err
    assert "--out" in err
    assert contents(tone.parent) == before


def test_existing_files_are_replaced_only_with_force(run, tone_run, tone, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for argv in (
        ("generate", tone_run, "--out", out, "--count", 2, "--seed", 1, *CPU),
        ("reconstruct", tone_run, tone, "--out", out, *CPU),
    ):
        assert run(*argv)[0] == 0
        names = {"sample-001.wav", "sample-002.wav"} if argv[0] == "generate" else {"tone.wav", "tone.png"}
        for name in names:
            (out / name).write_bytes(b"old")
        (out / max(names)).unlink()
        with monkeypatch.context() as patch:
            patch.setattr("distill.runs.instrument.Instrument.load", lambda *given: pytest.fail("computed"))
            code, _, err = run(*argv)
        assert code == 2
        assert f"{out / min(names)}: already exists" in err
        assert str(out / max(names)) not in err
        assert "--force" in err
        assert (out / min(names)).read_bytes() == b"old"
        assert not (out / max(names)).exists()
        assert run(*argv, "--force")[0] == 0
        assert all(len(content) > 1000 for name, content in contents(out).items() if name in names)


def test_generate_json(run, tone_run, tmp_path):
    argv = ("generate", tone_run, "--count", 3, "--duration", 0.7, "--json", *CPU)
    result = one_object(*run(*argv, "--out", tmp_path / "a", "--temperature", 0.5))
    assert sorted(result) == GENERATE_KEYS
    assert result["files"] == [str(tmp_path / "a" / f"sample-00{number}.wav") for number in (1, 2, 3)]
    assert (result["sample_rate"], result["duration_s"]) == (RATE, 0.7)
    settings = {"temperature": 0.5, "count": 3, "from": None, "axis": [], "steps": None, "radius": None}
    assert settings.items() <= result["settings"].items()
    for file in result["files"]:
        samples, rate = soundfile.read(file)
        assert (rate, samples.shape) == (RATE, (round(0.7 * RATE),))
        assert 1e-3 < np.abs(samples).max() < 0.9
    # The reported seed gives the same sounds again; another seed gives others.
    seeds = (result["seed"], result["seed"] + 1)
    again, other = (
        one_object(*run(*argv, "--out", tmp_path / name, "--temperature", 0.5, "--seed", seed))
        for name, seed in zip("bc", seeds, strict=True)
    )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not set(contents(tmp_path / "a").values()) & set(contents(tmp_path / "c").values())
    assert (again["seed"], other["seed"]) == seeds
    assert one_object(*run(*argv, "--out", tmp_path / "d"))["seed"] != result["seed"]


def test_generate_in_words(run, tone_run, tone, tmp_path):
    argv = ("generate", tone_run, "--out", tmp_path / "out", "--around", tone, "--count", 1, *CPU)
    code, out, err = run(*argv, "--seed", 7, "--sample-format", "pcm16")
    assert (code, err) == (0, "")
    assert str(tmp_path / "out" / "variation-001.wav") in out
    assert "1.30 s each, at 16000 Hz" in out
    assert "1 sound, 1.30 s" in out
    assert "repeat with --seed 7\n" in out
    interpolation = ("generate", tone_run, "--out", tmp_path / "other", "--from", tone, "--to", tone, *CPU)
    assert "--seed" not in run(*interpolation, "--seed", 7)[1]
    assert soundfile.info(tmp_path / "out" / "variation-001.wav").subtype == "PCM_16"


def test_a_sound_that_would_clip_is_lowered_and_reported(run, tone_run, tmp_path, monkeypatch):
    # Peaks that are not spread, and a limiter that may do next to nothing: otherwise hardly any sound is lowered.
    monkeypatch.setattr("distill.features.inversion.crossfade.spread_peaks", lambda sound, n_fft: sound)
    monkeypatch.setattr("distill.audio.peaks._MOST_LIMITED_DB", 0.1)
    argv = ("generate", tone_run, "--count", 2, "--temperature", 15, "--seed", 1, "--sample-format", "float", *CPU)
    result = one_object(*run(*argv, "--json", "--out", tmp_path / "a"))
    _, out, _ = run(*argv, "--out", tmp_path / "b")
    # One gain for the set, and no lower than needed: the loudest peak is at full scale.
    (gain,) = set(result["gains"])
    assert gain < 0.99
    assert max(np.abs(soundfile.read(file)[0]).max() for file in result["files"]) == pytest.approx(1.0, abs=1e-4)
    assert max(result["limited_db"]) > 0
    for index, (limited_db, share) in enumerate(zip(result["limited_db"], result["limited"], strict=True)):
        assert 0 <= limited_db <= 9.01
        assert (limited_db > 0) == (share > 0)
        line = f"sample-00{index + 1}.wav"
        assert line in out
        if limited_db >= 0.05:
            assert f"peaks limited by up to {limited_db:.1f} dB in {100 * share:.2g} % of the sound\n" in out
    assert out.count(f"lowered by {-20 * np.log10(gain):.1f} dB to avoid clipping") == 2


def test_all_faults_are_reported_at_once_and_nothing_is_written(run, tone_run, tone, tmp_path):
    wrong = ("--count", 0, "--duration", -1, "--temperature", "nan", "--steps", 1, "--radius", -0.5, "--axis", "1")
    code, _, err = run("generate", tone_run, "--out", tmp_path / "out", *wrong, "--from", tone, "--around", tone)
    assert code == 2
    for fault in (
        "--count 0 must be from 1",
        "--duration -1.0 must be from 0.01 to 3600 seconds",
        "--temperature nan must be from 0",
        "--steps 1 must be from 2",
        "--radius -0.5 must be from 0",
        "--axis '1' must be NUMBER=VALUE or NAME=VALUE, as in 1=1.5",
        f"--from {tone} needs --to",
        f"--around {tone} and --from/--to exclude each other",
    ):
        assert fault in err
    assert not (tmp_path / "out").exists()


def test_default_numbers_are_reported_and_numbers_without_effect_are_refused(run, tone_run, tone, tmp_path):
    between, around = ("--from", tone, "--to", tone), ("--around", tone)
    defaults = {(): {"count": 4, "temperature": 1.0}, between: {"steps": 5}, around: {"count": 4, "radius": 0.5}}
    remedies = {
        "count": "with --from and --to, or --through: give --steps instead",
        "temperature": "with --from and --to, --through or --around: leave it out",
        "steps": "without --from and --to, or --through: give them, or leave it out",
        "radius": "without --around: give a sound to vary, or leave it out",
    }
    for argv, taken in defaults.items():
        given = ("generate", tone_run, *argv, "--duration", 0.1, "--json", *CPU)
        result = one_object(*run(*given, "--out", tmp_path / "plain" / str(len(argv))))
        assert {name: result["settings"][name] for name in remedies} == dict.fromkeys(remedies) | taken
        assert len(result["files"]) == taken.get("count", taken.get("steps"))
        numbers = [word for name in remedies for word in (f"--{name}", 3)]
        code, _, err = run(*given, *numbers, "--out", tmp_path / "refused")
        assert code == 2
        for name, remedy in remedies.items():
            assert (remedy in err) == (name not in taken)
            assert (f"--{name} 3" in err) == (name not in taken)
    assert not (tmp_path / "refused").exists()


def test_generate_at_a_position_and_from_offsets(run, tone_run, tone, tmp_path):
    other = write(tmp_path / "in" / "other.wav", sine(PITCHES[5], 2.0, level=0.3))
    between = ("generate", tone_run, "--from", tone, "--to", other, "--at", 0.25, "--json", *CPU)
    result = one_object(*run(*between, "--offset", 0.5, 1.5, "--out", tmp_path / "a"))
    assert result["files"] == [str(tmp_path / "a" / "interpolation-001.wav")]
    assert result["duration_s"] == 0.8  # the longest of what is left
    assert {"at": 0.25, "offset": [0.5, 1.5], "steps": None}.items() <= result["settings"].items()
    whole = one_object(*run(*between, "--out", tmp_path / "b"))
    assert (whole["duration_s"], whole["settings"]["offset"]) == (2.0, [])
    code, _, err = run(*between, "--offset", 0.5, 7, "--out", tmp_path / "c")
    assert code == 1
    assert f"{other}: is 2.000 s long: nothing is left of it at the offset of 7 s" in err
    assert "tip: give a smaller offset" in err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("--to", "x.wav"), 2, "--to x.wav needs --from"),
        (("--axis", "1=30"), 2, "at most 20 standard deviations"),
        (("--axis", "pitch=1"), 2, "distill analyze"),
        (("--seed", "-1"), 2, "--seed -1 must be at least 0"),
        (("--around", "none.wav"), 1, "none.wav: no such file"),
        (("--device", "cuda:99"), 2, "cuda:99"),
        (("--through", "a.wav"), 2, "--through a.wav needs two or more sounds"),
        (("--through", "a.wav", "b.wav", "--from", "c.wav"), 2, "--through excludes --from, --to and --around"),
        (("--through", "a.wav", "b.wav", "c.wav", "--steps", "2"), 2, "--steps 2 must be at least 3"),
        (("--at", "0.5"), 2, "--at 0.5 has no effect without --from and --to"),
        (("--at", "0.5", "--around", "a.wav"), 2, "--at 0.5 has no effect without --from and --to"),
        (("--at", "0.5", "--through", "a.wav", "b.wav"), 2, "--at 0.5 excludes --through"),
        (("--at", "0.5", "--steps", "3", "--from", "a.wav", "--to", "b.wav"), 2, "--at 0.5 and --steps 3 exclude"),
        (("--at", "1.5", "--from", "a.wav", "--to", "b.wav"), 2, "--at 1.5 must be from 0 to 1"),
        (("--offset", "1"), 2, "--offset 1.0 has no effect without a sound to start from"),
        (("--offset", "1", "--from", "a.wav", "--to", "b.wav"), 2, "--offset 1.0: there must be one number for each"),
        (("--offset", "1", "2", "--around", "a.wav"), 2, "each sound to start from, 1 in all"),
        (("--offset", "-1", "--around", "a.wav"), 2, "--offset -1.0 of a.wav must be from 0 to 172800 seconds"),
        (("--offset", "0", "nan", "--through", "a.wav", "b.wav"), 2, "--offset nan of b.wav must be from 0"),
        (("--format", "aiff"), 2, "flac"),
        (("--format", "ogg", "--sample-format", "pcm16"), 2, "--sample-format pcm16 has no effect with --format ogg"),
        (("--format", "mp3", "--sample-rate", "96000"), 2, "give --sample-rate 44100"),
        (("--sample-rate", "1"), 2, "--sample-rate 1 must be from 8000"),
    ],
)
def test_invalid_options_are_named(run, tone_run, tmp_path, argv, code, message):
    found, _, err = run("generate", tone_run, "--out", tmp_path / "out", *CPU, *argv)
    assert found == code
    assert message in err
    assert not (tmp_path / "out").exists()


def test_an_unusable_sound_is_an_error_with_a_remedy_and_creates_no_folder(run, tone_run, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    write(tmp_path / "zeros.wav", np.zeros(CHUNK))
    for name, remedy in (
        ("none.wav", "check its name"),
        ("text.wav", "WAV, FLAC"),
        ("zeros.wav", "can be heard"),
        (".", "*.wav"),
    ):
        for argv in (("generate", tone_run, "--around", tmp_path / name), ("reconstruct", tone_run, tmp_path / name)):
            code, _, err = run(*argv, "--out", tmp_path / "new" / "out", *CPU)
            assert code == 1
            assert re.search(rf"^tip: .*{re.escape(remedy)}", err, re.MULTILINE), err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["generate", "reconstruct"])
def test_a_missing_run_and_an_output_that_is_no_folder_are_errors(run, tone_run, tone, tmp_path, command):
    files = [tone] if command == "reconstruct" else []
    code, _, err = run(command, tmp_path / "none", *files, "--out", tmp_path / "out")
    assert code == 2
    assert "none: no such run folder" in err
    code, _, err = run(command, tone_run, *files, "--out", tone)
    assert code == 1
    assert f"{tone}: cannot be written: not a folder" in err
    assert "--out" in err


def test_reconstruct_without_a_sound_is_an_error(run, tone_run, tmp_path):
    code, _, err = run("reconstruct", tone_run, "--out", tmp_path / "out")
    assert code == 2
    assert "no sound was given" in err


@pytest.mark.parametrize("is_complex", [True, False], ids=["two channels", "one channel"])
def test_a_trained_run_reconstructs_and_generates(run, sounds, cache, small_config, tmp_path, is_complex):
    feature = dataclasses.replace(small_config.complex_spectrogram, enabled=is_complex)
    config = dataclasses.replace(small_config, complex_spectrogram=feature, epochs=1)
    made = train(sounds, tmp_path / "run", config, cache_dir=cache if is_complex else None).run_dir
    assert load_model(made).config["in_channels"] == 1 + is_complex
    source = min(path for path in sounds.rglob("pad0*") if path.is_file())
    result = one_object(*run("reconstruct", made, source, "--out", tmp_path / "out", "--json", *CPU))
    samples, rate = soundfile.read(result["files"][0])
    info = soundfile.info(source)
    assert len(samples) == pytest.approx(info.frames / info.samplerate * rate, abs=1)
    again = one_object(*run("generate", made, "--out", tmp_path / "out", "--duration", 1.2, "--json", *CPU))
    for path in again["files"]:
        samples, _ = soundfile.read(path)
        assert len(samples) == round(1.2 * RATE)
        # No louder than a full-scale sine.
        assert 1e-3 < np.sqrt(np.square(samples).mean()) < 0.71


def test_reconstruct_keeps_a_name_that_is_not_unicode(run, tone_run, tmp_path):
    source = write(os.fsencode(tmp_path) + b"/\xff $x_{ name.wav", noise(1, RATE))
    result = one_object(*run("reconstruct", tone_run, source, "--out", tmp_path / "out", "--json", *CPU))
    names = sorted(os.fsencode(name) for name in contents(tmp_path / "out"))
    assert names == [b"\xff $x_{ name" + end for end in (b" (original).wav", b".png", b".wav")]
    assert len(result["files"]) == 1


def test_progress_of_a_long_sound(tone_run, tmp_path):
    source = write(tmp_path / "long.wav", sine(440, 30.0))
    calls = []
    reconstruct(tone_run, [source], tmp_path / "out", device="cpu", progress=lambda *figures: calls.append(figures))
    assert calls == [(stage := "reconstruct long.wav", 0, 78), (stage, 32, 78), (stage, 64, 78)]
    recipe = Recipe(around=source, count=2)
    generate(tone_run, tmp_path / "out", recipe, progress=lambda *figures: calls.append(figures))
    assert calls[3:6] == [("encode", 0, 78), ("encode", 32, 78), ("encode", 64, 78)]
    stages, done, totals = zip(*calls[6:], strict=True)
    assert {*stages, *totals} == {"generate", 156}
    assert done == (0, 78, 78, 156)


@pytest.mark.parametrize("command", ["reconstruct", "generate"])
@pytest.mark.parametrize("json", [(), ("--json",)], ids=["words", "json"])
def test_progress_of_a_long_sound_without_a_terminal(run, tone_run, tmp_path, monkeypatch, command, json):
    source = write(tmp_path / "long.wav", sine(440, 30.0))
    now = iter(range(0, 60_000, 3))
    monkeypatch.setattr("distill.cli.progress.time.monotonic", lambda: next(now))
    files = (source,) if command == "reconstruct" else ("--duration", 100, "--count", 1)
    code, out, err = run(command, tone_run, *files, "--out", tmp_path / "out", *json, *CPU)
    assert code == 0
    stage = "reconstruct long.wav" if command == "reconstruct" else "generate"
    assert re.search(rf"^{stage}: \d+ of \d+ windows, about \d+ s left$", err if json else out, re.MULTILINE)
