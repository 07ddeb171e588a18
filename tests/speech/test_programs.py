"""Codecs that are programs: delays are taken off, files are counted, and a missing program is left out with a note."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.speech.sounds import voice
from vqtool.api import DataSpec, Field, TensorRows
from vqtool.errors import MissingError, VqtoolError
from vqtool.training import evaluate
from vqtool_speech.baselines.opus import Opus, payload
from vqtool_speech.programs import ProgramCodec, Wave, aligned, read, write

SPEC = DataSpec({"x": Field((1, 4000), "signal")}, sample_rate=16_000.0)


class Copied(ProgramCodec):
    """Files that are copied, and come back 5 samples late."""

    programs = ("cp", "cp")
    package = "coreutils"

    def code(self, wave: Wave, folder: Path) -> tuple[Wave, int, int]:
        given, coded = write(wave, folder / "in.wav", self.rate), folder / "coded.wav"
        self.run("cp", given, coded)
        return np.r_[np.zeros(5, np.float32), read(coded, self.rate)], coded.stat().st_size, len(wave)


def test_rows_are_files_of_their_real_samples() -> None:
    x = 0.3 * torch.randn(2, 1, 4000, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    found = Copied(SPEC).predict({"x": x, "samples": torch.tensor([4000, 1000])})
    torch.testing.assert_close(found["x_hat"][0, :, :-5], x[0, :, :-5], atol=2**-15, rtol=0)
    torch.testing.assert_close(found["x_hat"][1, :, :995], x[1, :, :995], atol=2**-15, rtol=0)
    assert not found["x_hat"][1, :, 1000:].any()
    assert found["file_bytes"].tolist() == [44 + 8000, 44 + 2000]
    assert found["payload_bytes"].tolist() == [4000, 1000]


@given(st.integers(-900, 900), st.integers(0, 300), st.integers(0, 9))
def test_a_delay_is_found_whatever_its_sign_and_the_length(delay: int, longer: int, seed: int) -> None:
    wave = np.random.default_rng(seed).standard_normal(3000).astype(np.float32)
    late = np.r_[np.zeros(delay, np.float32), wave] if delay >= 0 else wave[-delay:]
    moved = aligned(wave, np.r_[late, np.zeros(longer, np.float32)], 960)
    assert moved.shape == wave.shape
    np.testing.assert_array_equal(moved[900:], wave[900:])


def page(*packets: int) -> bytes:
    lacing = b"".join(b"\xff" * (size // 255) + bytes([size % 255]) for size in packets)
    return b"OggS" + bytes(22) + bytes([len(lacing)]) + lacing + bytes(sum(packets))


def test_the_payload_of_an_ogg_file_is_its_packets_of_sound() -> None:
    assert payload(page(19) + page(60) + page(40, 300, 255) + page(7)) == 40 + 300 + 255 + 7


def test_a_missing_or_failing_program_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="`cp` failed"):
        Copied(SPEC).run("cp", tmp_path / "none.wav", tmp_path / "other.wav")
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(MissingError, match="`opusenc`") as caught:
        Opus(SPEC)
    assert caught.value.hint == "apt install opus-tools"


def test_what_is_not_installed_is_left_out_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setitem(sys.modules, "pesq", None)
    evaluate.note_missing.cache_clear()
    asked = SimpleNamespace(
        metrics=["pesq", "si-sdr"], baselines=["opus", {"kind": "opus", "kbps": 8}, "mu-law"], batch=2
    )
    model = cast(
        Any, SimpleNamespace(spec=SPEC, parts=None, recipe=SimpleNamespace(evaluate=asked, seed=0, folder=None))
    )
    rows = TensorRows({"x": 0.3 * torch.randn(2, 1, 4000, generator=torch.Generator().manual_seed(0))})
    data = cast(Any, SimpleNamespace(rows=lambda split: rows))
    evaluate.check_named(model)
    found = evaluate.evaluate_baselines(model, data, {"test": rows})["test"]
    assert set(found) == {"mu-law"}
    assert "si_sdr.db" in found["mu-law"]
    assert not any(name.startswith("pesq") for name in found["mu-law"])
    said = capsys.readouterr().err
    assert said.count("apt install opus-tools") == said.count("pip install 'vqtool[speech-metrics]'") == 1
    assert said.count("left out") == 2


@pytest.mark.skipif(shutil.which("opusenc") is None, reason="opus-tools is not installed")
def test_opus_itself() -> None:
    x = 0.3 * torch.from_numpy(np.asarray(voice(3.0, 16_000), dtype=np.float32))[None, None]
    low, high = Opus(SPEC, kbps=8).predict({"x": x}), Opus(SPEC).predict({"x": x})
    assert low["payload_bytes"] < low["file_bytes"]
    assert low["payload_bytes"] < high["payload_bytes"] < 3 * 3000
    error = (high["x_hat"] - x).square().mean() / x.square().mean()
    assert float(error) < 0.5  # aligned: a shift by a few samples gives 1 and more
