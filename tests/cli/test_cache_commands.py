"""``distill verify``, ``clean`` and ``export``, and options on caches: output and exit status."""

from __future__ import annotations

import json
import os
import re

import pytest
import torch

import distill
from distill.audio import load_cache_manifest
from sounds import SMALL, age, noise, one_object, reseal, slot_of, write, write_dataset


@pytest.fixture
def dataset(tmp_path, run):
    write_dataset(tmp_path / "dataset")
    one_object(*run("preprocess", tmp_path / "dataset", *SMALL, "--json"))
    return tmp_path / "dataset"


def flip_a_row(dataset) -> None:
    (path,) = (slot_of(dataset) / "packs").iterdir()
    content = bytearray(path.read_bytes())
    content[2_000] ^= 4
    path.write_bytes(content)


def test_the_exit_status_of_verify_says_whether_there_is_damage(run, dataset):
    code, out, _ = run("verify", dataset)
    assert code == 0
    assert "checked 10 rows in 1 pack and 5 files: no damage\n" in out
    flip_a_row(dataset)
    code, out, _ = run("verify", dataset)
    assert code == 1
    assert f"damaged: slots/{slot_of(dataset).name}/packs/" in out
    assert ": 1 row damaged: it holds features of" in out
    assert "--repair" in out
    code, out, _ = run("verify", dataset, "--repair")
    assert code == 0
    assert "no damage left, 1 repaired" in out
    assert run("verify", dataset)[0] == 0


def test_verify_json(run, dataset):
    assert one_object(*run("verify", dataset, "--json")) == {
        "rows": 10,
        "packs": 1,
        "files": 5,
        "damaged": [],
        "repaired": 0,
    }
    flip_a_row(dataset)
    code, out, err = run("verify", dataset, "--json")
    (damage,) = json.loads(out)["damaged"]
    assert code == 1
    assert damage.keys() == {"path", "reason", "code"}
    result = one_object(*run("verify", dataset, "--json", "--repair"))
    assert (len(result["damaged"]), result["repaired"]) == (1, 1)
    assert "damaged" in err


def test_verify_reports_changed_and_emptied_files(run, dataset):
    write(dataset / "sound-1.wav", noise(50), subtype="PCM_16")
    (dataset / "sound-3.wav").write_bytes(b"")
    code, out, _ = run("verify", dataset)
    assert code == 1
    assert "damaged: sound-1.wav: its bytes changed since its features were computed" in out
    assert "damaged: sound-3.wav: empty file" in out
    assert run("verify", dataset, "--repair")[0] == 0


@pytest.mark.parametrize(("folder", "path"), [(".", "dataset"), ("beside", "../dataset"), ("dataset/deep", "..")])
def test_verify_with_a_relative_path(run, dataset, tmp_path, monkeypatch, folder, path):
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir(tmp_path / folder)
    assert "5 files: no damage\n" in run("verify", path)[1]
    write(dataset / "sound-1.wav", noise(50), subtype="PCM_16")
    write(dataset / "deep" / "er" / "sound-2.wav", noise(51), subtype="PCM_16")
    code, out, _ = run("verify", path)
    assert code == 1
    assert "damaged: sound-1.wav: its bytes changed" in out
    assert "damaged: deep/er/sound-2.wav: its bytes changed" in out
    code, out, _ = run("verify", path, "--repair")
    assert code == 0
    assert "no damage left, 2 repaired" in out
    assert "checked 8 rows in 2 packs and 5 files: no damage\n" in run("verify", path)[1]
    assert one_object(*run("preprocess", path, *SMALL, "--json"))["decoded"] == 0


def test_verify_fails_if_files_cannot_be_read(run, unprivileged):
    write_dataset(unprivileged)
    run("preprocess", unprivileged, *SMALL)
    (unprivileged / "deep").chmod(0)
    for options in ([], ["--repair"]):
        code, out, _ = run("verify", unprivileged, *options)
        assert code == 1
        assert "not checked: deep/er/sound-0.wav: could not be checked: unreadable: permission denied" in out
        assert "no damage" not in out
    assert "3 could not be checked, 0 repaired" in out


def test_a_cache_without_a_valid_manifest_is_an_error_with_a_remedy(run, dataset, tmp_path):
    (slot_of(dataset) / "manifest.json").write_text("{}")
    for options in ([], ["--repair"]):
        code, _, err = run("verify", dataset, *options)
        assert code == 1
        assert "no valid cache" in err
        assert "tip: run: distill preprocess" in err
    assert run("clean", dataset)[0] == 1
    assert run("export", dataset, tmp_path / "out")[0] == 1
    assert run("verify", tmp_path / "nowhere")[0] == 2


def test_clean_removes_unused_rows(run, dataset):
    (dataset / "sound-1.wav").unlink()
    one_object(*run("preprocess", dataset, *SMALL, "--json"))
    assert one_object(*run("status", dataset, "--json"))["dead_rows"] == 2
    assert "8 rows and 2 unused rows, " in run("status", dataset)[1]
    code, out, _ = run("clean", dataset)
    assert (code, out.split(", ")[0]) == (0, "removed 2 unused rows")
    assert one_object(*run("status", dataset, "--json"))["dead_rows"] == 0
    assert one_object(*run("preprocess", dataset, *SMALL, "--json"))["decoded"] == 0


@pytest.mark.parametrize(("kind", "files"), [("pt", 11), ("npy", 2), ("safetensors", 2)])
def test_export_in_each_format(run, dataset, tmp_path, kind, files):
    code, out, _ = run("export", dataset, tmp_path / "out", "--format", kind)
    assert code == 0
    assert f"10 rows in {tmp_path / 'out'}" in out
    assert len(list((tmp_path / "out").iterdir())) == files
    if kind == "pt":
        assert torch.load(tmp_path / "out" / "000000.pt", weights_only=True).shape == (2, 32, 32)
    code, _, err = run("export", dataset, tmp_path / "out")
    assert code == 1
    assert "not empty" in err


def test_trust_content_finds_changes_that_time_stamps_hide(run, dataset):
    """Bit rot changes no time stamp. No program can set ctime, so the manifest gets the new one instead."""
    age(dataset)
    one_object(*run("preprocess", dataset, *SMALL, "--json"))
    path = dataset / "sound-1.wav"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[4_000] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    age(dataset)
    forge_stamps(dataset, path)
    assert one_object(*run("status", dataset, "--json"))["changed"] == 0
    assert one_object(*run("preprocess", dataset, *SMALL, "--json"))["decoded"] == 0
    assert one_object(*run("status", dataset, "--json", "--trust", "content"))["changed"] == 1
    code, out, _ = run("verify", dataset)
    assert code == 1
    assert "though its stamps did not" in out
    assert one_object(*run("preprocess", dataset, *SMALL, "--json", "--trust", "content"))["decoded"] == 1
    assert run("verify", dataset)[0] == 0


def forge_stamps(dataset, path) -> None:
    """Write the present ctime of `path` into the manifest."""

    def edit(line: str) -> str:
        if f'"path":"{path.name}"' not in line:
            return line
        return re.sub(r'"ctime_ns":\d+', f'"ctime_ns":{path.stat().st_ctime_ns}', line)

    reseal(slot_of(dataset) / "manifest.json", edit)
    assert load_cache_manifest(dataset / ".cache") is not None


@pytest.mark.parametrize("version", ["99.0", f"{distill.__version__}.1", "99.0rc1"])
def test_a_header_of_a_later_version_is_refused_and_left_alone(run, dataset, version):
    def edit(line: str, version: str) -> str:
        line = re.sub(r'("distill_version": ?)"[^"]+"', rf'\1"{version}"', line)
        # A field that this version does not have.
        return re.sub(r'("complex_spectrogram_config": ?{)', r'\1"later":1,', line)

    path = slot_of(dataset) / "manifest.json"
    reseal(path, lambda line: edit(line, version))
    before = path.read_bytes()
    for command in (["status"], ["preprocess", *SMALL], ["verify"], ["clean"]):
        code, _, err = run(command[0], dataset, *command[1:])
        assert code == 1, command
        assert f"manifest.json: a later version of distill wrote this: distill {version}" in err
        assert "update distill" in err
    assert path.read_bytes() == before


def test_a_header_of_an_earlier_version_that_is_not_read_is_computed_again(run, dataset):
    def edit(line: str) -> str:
        line = re.sub(r'("distill_version": ?)"[^"]+"', r'\1"0.0.9"', line)
        return re.sub(r'("complex_spectrogram_config": ?{)', r'\1"earlier":1,', line)

    reseal(slot_of(dataset) / "manifest.json", edit)
    result = one_object(*run("status", dataset, "--json"))
    assert "or distill 0.0.9 wrote what" in result["damage"]
    assert (result["added"], result["unchanged"]) == (result["files"], 0)
    code, out, err = run("preprocess", dataset, *SMALL)
    assert code == 0
    assert "distill 0.0.9 wrote" in out + err
    assert one_object(*run("status", dataset, "--json"))["damage"] is None


def test_links_out_of_the_dataset_are_followed_only_on_request(run, dataset, tmp_path):
    write(tmp_path / "other" / "far.wav", noise(60))
    (dataset / "far").symlink_to(tmp_path / "other")
    (dataset / "near.wav").symlink_to(tmp_path / "other" / "far.wav")
    result = one_object(*run("preprocess", dataset, *SMALL, "--json"))
    assert (result["decoded"], result["rows"]) == (0, 10)
    assert [entry["path"] for entry in result["skipped"]] == ["near.wav"]
    result = one_object(*run("preprocess", dataset, *SMALL, "--json", "--follow-links"))
    assert (result["decoded"], result["rows"], result["skipped"]) == (1, 11, [])
    assert one_object(*run("status", dataset, "--json", "--follow-links"))["unchanged"] == 7
    assert one_object(*run("verify", dataset, "--json", "--follow-links"))["files"] == 7
    code, out, _ = run("verify", dataset, "--json")
    assert code == 1
    damaged = json.loads(out)["damaged"]
    assert {entry["path"] for entry in damaged} == {"far/far.wav", "near.wav"}
    assert all("could not be checked" in e["reason"] and "--follow-links" in e["reason"] for e in damaged)


def test_float16_halves_the_cache(run, dataset):
    whole = one_object(*run("status", dataset, "--json"))["bytes"]
    code, out, _ = run("preprocess", dataset, *SMALL, "--cache-dtype", "float16")
    assert code == 0
    assert "dtype was float32, is float16" in out
    assert one_object(*run("status", dataset, "--json"))["bytes"] < 0.6 * whole
    code, _, err = run("preprocess", dataset, *SMALL, "--cache-dtype", "float8")
    assert code == 2
    assert "float16" in err
