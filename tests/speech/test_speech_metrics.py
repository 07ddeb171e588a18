"""PESQ and STOI: what their libraries are given, what is left out, and what is said where one is not installed."""

from __future__ import annotations

import copy
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.speech.sounds import voice
from vqtool.api import DataSpec, Field, UnfitError
from vqtool.errors import MissingError
from vqtool_speech.metrics.bitrate import Bitrate
from vqtool_speech.metrics.pesq import Pesq
from vqtool_speech.metrics.stoi import Stoi


def spec(rate: float | None = 16_000.0) -> DataSpec:
    return DataSpec({"x": Field((1, 4000), "signal")}, sample_rate=rate)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Libraries that note what they are given; PESQ finds no speech in zeros."""
    calls: list[tuple[Any, ...]] = []
    one, other = ModuleType("pesq"), ModuleType("pystoi")
    one.NoUtterancesError = type("NoUtterancesError", (Exception,), {})  # type: ignore[attr-defined]  # made here
    one.BufferTooShortError = type("BufferTooShortError", (Exception,), {})  # type: ignore[attr-defined]  # made here

    def grade(rate: int, before: Any, after: Any, mode: str) -> float:
        calls.append((rate, before, after, mode))
        if not before.any():
            raise one.NoUtterancesError
        return 1.0 + len(calls)

    def understood(before: Any, after: Any, rate: int) -> float:
        calls.append((rate, before, after))
        return 0.5 + len(calls) / 10

    one.pesq, other.stoi = grade, understood  # type: ignore[attr-defined]  # made here
    monkeypatch.setitem(sys.modules, "pesq", one)
    monkeypatch.setitem(sys.modules, "pystoi", other)
    return calls


@pytest.mark.parametrize(("kind", "name", "values"), [(Pesq, "pesq.wb", (2.0, 3.0)), (Stoi, "stoi", (0.6, 0.7))])
def test_each_row_is_given_without_what_fills_it_up(fake: list[Any], kind: Any, name: str, values: Any) -> None:
    x = torch.randn(2, 1, 4000, generator=torch.Generator().manual_seed(0))
    metric = kind(spec())
    metric.update(x=x, x_hat=x / 2, samples=torch.tensor([4000, 2500]))
    assert [len(call[1]) for call in fake] == [4000, 2500]
    assert all(call[0] == 16_000 for call in fake)
    np.testing.assert_allclose(fake[1][1], x[1, 0, :2500].numpy())  # the original comes first
    np.testing.assert_allclose(fake[1][2], x[1, 0, :2500].numpy() / 2)
    assert metric.compute() == {name: pytest.approx(sum(values) / 2)}
    assert kind(spec()).compute() == {}


def test_other_rates_are_resampled_and_silence_is_counted(fake: list[Any]) -> None:
    x = torch.stack([torch.zeros(1, 4000), torch.ones(1, 4000)])
    metric = Pesq(spec(8000.0))
    metric.update(x=x, x_hat=x)
    assert [len(call[1]) for call in fake] == [8000, 8000]
    assert [call[3] for call in fake] == ["wb", "wb"]
    assert metric.compute() == {"pesq.wb": 3.0, "pesq.silent": 1.0}


@pytest.mark.parametrize(("kind", "library"), [(Pesq, "pesq"), (Stoi, "pystoi")])
def test_what_is_missing_or_does_not_fit_is_said(
    fake: list[Any], monkeypatch: pytest.MonkeyPatch, kind: Any, library: str
) -> None:
    with pytest.raises(UnfitError, match="the data's rate is none"):
        kind(spec(None))
    with pytest.raises(UnfitError, match="the data's rate is 100 Hz"):
        kind(spec(100.0))
    copy.deepcopy(kind(spec()))  # measures that saw the training rows are copied for each split
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingError, match=f"`{library}`") as caught:
        kind(spec())
    assert caught.value.hint == "pip install 'vqtool[speech-metrics]'"


def test_the_libraries_themselves() -> None:
    pytest.importorskip("pesq", reason="pip install 'vqtool[speech-metrics]'")
    pytest.importorskip("pystoi", reason="pip install 'vqtool[speech-metrics]'")
    x = torch.from_numpy(np.asarray(voice(3.0, 16_000), dtype=np.float32))[None, None]
    noise = 0.1 * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for louder in (0.0, 1.0, 10.0):
        metrics = Pesq(spec()), Stoi(spec())
        for metric in metrics:
            metric.update(x=x, x_hat=x + louder * noise)
        found.append({name: value for metric in metrics for name, value in metric.compute().items()})
    assert found[0]["pesq.wb"] == pytest.approx(4.64, abs=0.01)
    assert found[0]["stoi"] == pytest.approx(1.0, abs=1e-3)
    assert found[0]["pesq.wb"] > found[1]["pesq.wb"] > found[2]["pesq.wb"]
    assert found[0]["stoi"] > found[2]["stoi"]


@pytest.mark.parametrize(("kind", "name", "worst"), [(Pesq, "pesq.wb", 1.04), (Stoi, "stoi", 0.0)])
def test_a_decoder_that_gives_silence_or_no_numbers(kind: Any, name: str, worst: float) -> None:
    pytest.importorskip("pesq", reason="pip install 'vqtool[speech-metrics]'")
    pytest.importorskip("pystoi", reason="pip install 'vqtool[speech-metrics]'")
    x = torch.from_numpy(np.asarray(voice(3.0, 16_000), dtype=np.float32))[None, None]
    for before, after, expected in (
        (x, torch.zeros_like(x), {name: pytest.approx(worst)}),
        (x, torch.full_like(x, torch.nan), {name: pytest.approx(torch.nan, nan_ok=True)}),
        (torch.zeros_like(x), x, {f"{name.split('.')[0]}.silent": 1.0}),
    ):
        metric = kind(spec())
        metric.update(x=before, x_hat=after)
        assert metric.compute() == expected


def test_a_rate_of_files_that_a_baseline_wrote() -> None:
    metric = Bitrate(spec())
    x = torch.zeros(2, 1, 16_000)
    metric.update(x=x, samples=torch.tensor([16_000, 8000]), file_bytes=torch.tensor([1500, 1500]),
                  payload_bytes=torch.tensor([1000, 500]))  # fmt: skip
    assert metric.compute() == {"bitrate.kbps": pytest.approx(16.0), "bitrate.payload_kbps": pytest.approx(8.0)}
    without = Bitrate(spec())
    without.update(x=x)
    assert without.compute() == {}
