"""The forecasters that ship keep the laws of forecasts; their paths stay apart; the tokens do not know the unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.forecast import laws, tokens
from tests.forecast.laws import backtest, forecast
from vqtool.api import Batch
from vqtool.errors import VqtoolError
from vqtool.model.data import open_data
from vqtool.model.load import from_checkpoint
from vqtool.model.model import Model

DRAWN = [law for law in laws.LAWS if law is not laws.seeds]


@pytest.fixture(scope="module", params=["ridge", "revin"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of each norm for all tests."""
    return tokens.trained(tmp_path_factory.mktemp(request.param), norm=request.param)


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_sample_paths_keep_the_laws(law: Callable[[Path, Path], None], runs: dict[str, Path], tmp_path: Path) -> None:
    law(runs["prior"], tmp_path)


@pytest.mark.parametrize("law", DRAWN, ids=lambda law: law.__name__)
def test_the_direct_head_keeps_the_laws(
    law: Callable[[Path, Path], None], runs: dict[str, Path], tmp_path: Path
) -> None:
    law(runs["direct"], tmp_path)


def test_joint_channels(tmp_path: Path) -> None:
    joint = tokens.trained(tmp_path, channels="joint")
    for stage in ("prior", "direct"):
        laws.no_look_ahead(joint[stage], tmp_path)
        laws.scale_and_shift(joint[stage], tmp_path)
        laws.a_longer_forecast_begins_with_the_shorter(joint[stage], tmp_path, longest=33)


def opened(path: Path, rows: int = 4) -> tuple[Model, Any, Batch]:
    """A model, its task and some held-out rows without their future."""
    model, read = from_checkpoint(path)
    model.parts.eval()
    data = open_data(model.recipe).rows("test")
    batch = data.__getitems__(list(range(0, 40, 40 // rows)))
    return model, model.tasks[read.metadata["stage"]], {k: v for k, v in batch.items() if k != "future"}


@torch.no_grad()
def test_paths_stay_apart_past_the_learned_steps(runs: dict[str, Path]) -> None:
    """Every path goes on from itself: cutting one off from the others changes nothing of it."""
    model, task, batch = opened(runs["prior"])
    paths = task.forecast(model.parts, batch, 30, samples=5, seeds=[1, 2, 3, 4])
    assert paths.shape == (4, 5, 1, 30)
    fewer = task.forecast(model.parts, batch, 30, samples=2, seeds=[1, 2, 3, 4])
    torch.testing.assert_close(fewer, paths[:, :2])
    late = paths[..., -1].std(1).mean()
    assert late > 0.5 * paths[..., 11].std(1).mean()


@torch.no_grad()
def test_tokens_of_a_history_know_neither_unit_nor_future(runs: dict[str, Path]) -> None:
    model, task, batch = opened(runs["prior"])
    codes = task.encode(model.parts, batch)["codes"]
    for scale in (1e-3, 1.0, 1e6):
        moved = {**batch, "x": scale * (batch["x"] + 3), "future": torch.full((4, 1, 12), torch.nan)}
        assert torch.equal(task.encode(model.parts, moved)["codes"], codes)


@torch.no_grad()
def test_cold_or_narrow_sampling_is_greedy(runs: dict[str, Path]) -> None:
    model, task, batch = opened(runs["prior"])
    greedy = task.forecast(model.parts, batch, 12, samples=7, greedy=True)
    assert greedy.shape == (4, 1, 1, 12)
    for how in ({"temperature": 0.0}, {"top_k": 1}, {"temperature": 1e-9}):
        result = task.forecast(model.parts, batch, 12, samples=2, seeds=[5, 6, 7, 8], **how)
        torch.testing.assert_close(result[:, :1], greedy)
    open_ = task.forecast(model.parts, batch, 12, samples=2, seeds=[5, 6, 7, 8])
    wide = task.forecast(model.parts, batch, 12, samples=2, seeds=[5, 6, 7, 8], top_p=1.0, top_k=16)
    assert torch.equal(open_, wide)


@torch.no_grad()
def test_a_silent_head_starts_at_what_the_norm_predicts(runs: dict[str, Path]) -> None:
    model, task, batch = opened(runs["direct"])
    for name, parameter in model.parts.regressor.named_parameters():
        if name.startswith("end."):
            parameter.zero_()
    result = task.forecast(model.parts, batch, 12)
    torch.testing.assert_close(result[:, 0], model.parts.norm.future_stats(batch, 12)[0])
    fan = task.forecast(model.parts, batch, 12, samples=9)
    assert bool((fan.diff(dim=1) > 0).all())
    torch.testing.assert_close(fan[:, 4], result[:, 0])


def quantile(table: pd.DataFrame, level: str) -> Any:
    """The values of one column of quantiles."""
    return table[f"q{level}"].to_numpy()


def test_the_direct_head_says_that_it_draws_nothing(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecast(runs["direct"], tmp_path / "q.csv", 3, temperature=2.0)
    assert "this model draws nothing" in capsys.readouterr().err


def test_the_direct_head_knows_its_quantiles(runs: dict[str, Path], tmp_path: Path) -> None:
    """Its widths are Laplace, so the outer quantiles lie as far out as the logarithm of their levels says."""
    levels = "0.001,0.005,0.05,0.1,0.5,0.9,0.999"
    results = [forecast(runs["direct"], tmp_path / "q.csv", 3, quantiles=levels, samples=n) for n in (100, 5, 1)]
    for other in results[1:]:
        pd.testing.assert_frame_equal(results[0], other, check_exact=True)
    median = results[0]["median"].to_numpy()
    width = (median - quantile(results[0], "0.1")) / np.log(5)
    assert (width > 0).all()
    for level in ("0.001", "0.005", "0.05"):
        np.testing.assert_allclose(median - quantile(results[0], level), -width * np.log(2 * float(level)), rtol=1e-3)
    np.testing.assert_allclose(quantile(results[0], "0.999") - median, width * np.log(500), rtol=1e-3)
    np.testing.assert_array_equal(quantile(results[0], "0.5"), median)
    scored = [backtest(runs["direct"], tmp_path / "b.csv", 3, 1, quantiles=levels, samples=n) for n in (100, 5)]
    pd.testing.assert_frame_equal(*scored, check_exact=True)
    assert (quantile(scored[0], "0.001") < quantile(scored[0], "0.005")).all()


def test_quantiles_beyond_what_the_paths_can_tell_are_refused_before_the_work(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    unread = tmp_path / "empty.csv"
    unread.touch()
    for run in (forecast, backtest):
        with pytest.raises(VqtoolError, match=r"5 sample paths give quantiles from 0.167 to 0.833, not 0.1$") as caught:
            run(runs["prior"], tmp_path / "q.csv", 3, *([1] if run is backtest else []), samples=5, data=unread)
        assert caught.value.hint == "at least --samples 9, or other --quantiles"
    narrow = forecast(runs["prior"], tmp_path / "q.csv", 3, quantiles="0.2,0.8", samples=5)
    assert list(narrow.columns) == ["unique_id", "ds", "median", "q0.2", "q0.8"]


@pytest.mark.parametrize(("freq", "zone"), [("h", "Europe/Berlin"), ("ME", None)])
def test_the_same_history_gives_the_same_forecast_wherever_its_file_begins(
    runs: dict[str, Path], tmp_path: Path, freq: str, zone: str | None
) -> None:
    """Here before and after a change of summer time, and on another calendar than the model was trained on."""
    stamps = pd.date_range("2024-03-29", periods=160, freq=freq, tz=zone)
    table = pd.DataFrame({"unique_id": "a", "ds": stamps, "y": 10 + np.sin(np.arange(160) * np.pi / 12)})
    results = []
    for begin in (0, 7, 103):
        table[begin:].to_parquet(tmp_path / "it.parquet")
        results.append(forecast(runs["direct"], tmp_path / "f.csv", 12, data=tmp_path / "it.parquet", freq=freq))
    pd.testing.assert_frame_equal(results[0], results[1], check_exact=True)
    pd.testing.assert_frame_equal(results[0], results[2], check_exact=True)


@torch.no_grad()
def test_the_oracle_alone_reads_the_future(runs: dict[str, Path]) -> None:
    model, task, batch = opened(runs["prior"])
    results = []
    for future in (torch.zeros(4, 1, 12), 100 + torch.randn(4, 1, 12)):
        torch.manual_seed(0)
        results.append(task.estimate(model.parts, {**batch, "future": future}).named)
    assert torch.equal(results[0]["forecast"], results[1]["forecast"])
    assert torch.equal(results[0]["paths"], results[1]["paths"])
    assert not torch.equal(results[0]["forecasts"]["oracle"], results[1]["forecasts"]["oracle"])
    np.testing.assert_array_equal(results[0]["codes"], results[1]["codes"])
