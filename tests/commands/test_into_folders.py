"""`--out FOLDER/`, or a folder that is there: what becomes of one input is a file in it, named after the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.run import within as vqtool
from tests.speech.sounds import voice
from tests.training.tiny import write_recipe


@pytest.mark.parametrize("there", [True, False])
def test_arrays(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path)
    assert vqtool("train", recipe, "--out", "run", "-s", "stage.tokenizer.steps=1").returncode == 0
    if there:
        Path("codes.of").mkdir()
        Path("back").mkdir()
    done = vqtool("encode", "run", "signals.npz", "--out", "codes.of" if there else "codes.of/")
    assert (done.returncode, done.stdout.split()) == (0, ["codes.of/signals.safetensors"]), done.stderr
    done = vqtool("decode", "run", "codes.of/signals.safetensors", "--out", "back" if there else "back/")
    assert (done.returncode, done.stdout.split()) == (0, ["back/signals.npz"]), done.stderr
    assert np.load("back/signals.npz")["x"].shape == (120, 1, 32)


@pytest.mark.parametrize("there", [True, False])
def test_sounds(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder of sounds the files lie in the folder, as they always did."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    soundfile.write("in/one.v2.wav", 0.3 * voice(0.5, 16_000, seed=3), 16_000)
    for folder in ("v1.0", "back", "all", "all-back") if there else ():
        Path(folder).mkdir()
    slash = "" if there else "/"
    for verb, given, out, file in (
        ("encode", "in/one.v2.wav", "v1.0", "v1.0/one.v2.vqc"),
        ("decode", "v1.0/one.v2.vqc", "back", "back/one.v2.wav"),
        ("encode", "in", "all", "all/one.v2.vqc"),
        ("decode", "all", "all-back", "all-back/one.v2.wav"),
    ):
        done = vqtool(verb, "codec", given, "--out", f"{out}{slash}")
        assert (done.returncode, done.stdout.split()) == (0, [file]), done.stderr
        assert [str(path) for path in Path(out).iterdir()] == [file]


def test_a_folder_that_cannot_be_made_and_a_name_that_is_not_known(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "one.wav", 0.3 * voice(0.5, 16_000, seed=3), 16_000)
    done = vqtool("encode", "codec", tmp_path / "one.wav", "--out", f"{tmp_path}/no/new/")
    assert (done.returncode, "there is no folder" in done.stderr) == (2, True)
    done = vqtool("decode", "codec", tmp_path / "none.vqc", "--out", f"{tmp_path}/new/")
    assert (done.returncode, "there is no file" in done.stderr, (tmp_path / "new").exists()) == (2, True, False)
    (tmp_path / "file").touch()
    done = vqtool("encode", "codec", tmp_path / "one.wav", "--out", f"{tmp_path}/file/")
    assert (done.returncode, "File exists" in done.stderr) == (1, True)
    assert (tmp_path / "file").read_bytes() == b""
