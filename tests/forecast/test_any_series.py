"""Forecasts of series never trained on: the frame, synthetic series, the tasks, and the shipped forecaster."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import vqtool as library
from tests.cli.run import vqtool, within
from vqtool.errors import VqtoolError
from vqtool.model.model import Model
from vqtool_forecast.data.synthetic_series import SyntheticSeries
from vqtool_forecast.tasks.any_series import AnySeriesTokens
from vqtool_forecast.zero_shot import head
from vqtool_forecast.zero_shot.closed_forms import NAMES, closed_forms
from vqtool_forecast.zero_shot.frame import framed
from vqtool_forecast.zero_shot.pool import SHARES, batch_of, synthetic_windows
from vqtool_forecast.zero_shot.real_series import copies, held_out_series
from vqtool_forecast.zero_shot.seasons import seasons_of
from vqtool_forecast.zero_shot.synthetic import GENERATORS, Kind, of_generator

SHORT = ["-s", "stage.quantiles.steps=2", "-s", "stage.paths.steps=2", "-s", "data.own=40"]
STAMPS = {"5min": 900, "h": 300, "D": 90, "W-SUN": 120, "MS": 40, "QS-JAN": 12, "YS-JAN": 4}


def file_of(path: Path, freq: str, rows: int, names: str = "ab") -> Path:
    rng = np.random.default_rng(0)
    wide = {name: 50 + 5 * rng.standard_normal(rows).cumsum() ** 2 / rows for name in names}
    pd.DataFrame({"ds": pd.date_range("2000-01-01", periods=rows, freq=freq), **wide}).to_csv(path, index=False)
    return path


@pytest.fixture(autouse=True)
def _away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no runs."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model() -> Model:
    return library.load("forecaster")


# ---- the frame


def test_a_row_is_the_same_alone_and_among_longer_ones() -> None:
    rng = np.random.default_rng(0)
    rows = [20 + rng.standard_normal(n).cumsum() for n in (4, 9, 30, 70, 200)]
    together, centre, scale = framed(rows, (12, 12), 30)
    for place, row in enumerate(rows):
        alone, c, s = framed([row], (12, 12), 30)
        assert (float(c[0]), float(s[0])) == pytest.approx((float(centre[place]), float(scale[place])))
        for name, value in alone.items():
            torch.testing.assert_close(value[0], together[name][place], rtol=1e-4, atol=1e-4, msg=name)


def test_the_frame_is_in_units_of_the_history() -> None:
    x = 30 + np.random.default_rng(0).standard_normal(60).cumsum()
    (one, _, s), (other, _, t) = framed([x], (12, 12), 12), framed([1000 * x], (12, 12), 12)
    assert float(t / s) == pytest.approx(1000)
    for name in set(one) - {"facts"}:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("x", [[3, 3, 3, 3], [0, 0, 0, 0, 0, 7], [1e12, 1e12 + 1, 1e12, 1e12 + 2], [-5, 2, -1e-9, 4e7]])
def test_any_four_values_have_a_frame(x: list[float]) -> None:
    for seasons in ((1, 1), (12, 12), (24, 168)):
        batch, _, scale = framed([np.array(x, float)], seasons, 50)
        assert all(value.isfinite().all() for value in batch.values())
        assert float(scale[0]) > 0


def test_closed_forms_know_a_line_and_a_season() -> None:
    t = np.arange(48.0)
    y = torch.from_numpy(2 * t + np.tile([5.0, -5, 1, -1], 12))[None]
    y = y - y[:, -1:]
    n = torch.tensor([48])
    ahead = np.arange(48, 56)
    truth = 2 * ahead + np.tile([5.0, -5, 1, -1], 2) - (2 * 47 - 1)
    found = closed_forms(y, n, (4, 4), 8, torch.tensor([-1000.0]).double())
    assert np.abs(found[0, NAMES.index("last")].numpy() - truth + 2 * np.arange(1, 9)).max() < 1e-6
    assert np.abs(found[0, NAMES.index("seasonal-drift")].numpy() - truth).max() < 1.1


def test_the_seasons_of_frequencies() -> None:
    asked = ("5min", "h", "D", "B", "W-SUN", "MS", "QE-DEC", "YE-DEC", "s", "1")
    assert [seasons_of(freq) for freq in asked] == [
        (288, 2016), (24, 168), (7, 364), (5, 260), (52, 52), (12, 12), (4, 4), (1, 1), (1, 1), (1, 1),
    ]  # fmt: skip


# ---- what is trained on


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_give_series_of_every_length_and_season(name: str) -> None:
    for n, seasons in itertools.product((20, 61, 400), SHARES):
        one, again = (of_generator(name, Kind(n, *seasons), np.random.default_rng(7)) for _ in range(2))
        assert one.shape == (n,)
        assert np.isfinite(one).all()
        assert (one == again).all()


def test_counts_are_whole_and_intermittent_demand_is_often_nothing() -> None:
    rng = np.random.default_rng(0)
    kind = Kind(200, 12, 12)
    wholes = [x / x[x > 0].min() for _ in range(5) if (x := of_generator("counts", kind, rng)).any()]
    assert all(x.min() >= 0 for x in wholes)
    assert np.mean([(of_generator("intermittent", kind, rng) == 0).mean() for _ in range(20)]) > 0.2


def test_futures_follow_their_histories() -> None:
    windows = synthetic_windows(30, np.random.default_rng(0))
    batch = batch_of(windows, 12)
    for place, window in enumerate(windows):
        _, centre, scale = framed([window.past], window.seasons, 12)
        known = batch["future"][place, 0]
        steps = min(12, len(window.future))
        truth = ((window.future[:steps] - float(centre[0])) / float(scale[0])).clip(-60, 60)
        np.testing.assert_allclose(known[:steps].numpy(), truth, rtol=1e-3, atol=1e-3)
        assert known[steps:].isnan().all()


def test_copies_are_found_in_any_unit_and_place() -> None:
    rng = np.random.default_rng(0)
    held_out = rng.standard_normal(40).cumsum()
    inside = np.concatenate([rng.standard_normal(30), 7 - 3 * -held_out, rng.standard_normal(9)])
    other, short = rng.standard_normal(200).cumsum(), held_out[:10]
    assert copies([other, inside, short, np.arange(50.0)], [held_out, np.arange(60.0)]) == [1]


def test_held_out_series_come_from_the_columns_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("date,a,b\n2000-01-01,1,2\n2000-01-02,3,\n")
    assert [list(one) for one in held_out_series(tmp_path / "a.csv")] == [[1, 3], [2]]
    with pytest.raises(VqtoolError, match=r"cannot read `none\.csv`: No such file"):
        list(held_out_series("none.csv"))


def test_the_data_are_the_same_again_and_their_splits_differ() -> None:
    one, again = (SyntheticSeries(synthetic=40, valid=20, horizon=8) for _ in range(2))
    batch = one.rows("train").__getitems__([0, 5])
    torch.testing.assert_close(batch, again.rows("train").__getitems__([0, 5]), equal_nan=True)
    assert {name: tuple(value.shape[1:]) for name, value in batch.items()} == {
        name: field.shape for name, field in one.spec.fields.items()
    }
    assert not torch.equal(one.rows("valid").__getitems__([0])["x"], batch["x"][:1])


def test_validation_is_on_sources_that_exist() -> None:
    with pytest.raises(VqtoolError, match="valid_sources names `M9`, which"):
        SyntheticSeries(synthetic=8, real=8, valid=2, valid_sources=("PBS", "M9"))


def test_no_series_of_a_source_for_validation_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    series = [(f"{name}/{k}", level + rng.standard_normal(60), (4, 4)) for k in range(3)
              for name, level in (("PBS", 1e3), ("tute1", 1e6))]  # fmt: skip
    monkeypatch.setattr("vqtool_forecast.data.synthetic_series.real_series", lambda: series)
    data = SyntheticSeries(synthetic=0, real=20, valid=20, valid_sources=("tute1",))
    levels = {split: data.rows(split).__getitems__(list(range(20)))["floor"].abs() for split in data.splits}
    assert levels["train"].max() < 1e4 < min(levels[split].min() for split in ("valid", "test"))


def test_a_file_is_trained_on_up_to_its_end_part(tmp_path: Path) -> None:
    data = SyntheticSeries(path=file_of(tmp_path / "a.csv", "MS", 100), synthetic=0, own=50, valid=8, horizon=12)
    assert len(data.rows("train")) == 50
    assert 0 < len(data.rows("valid")) <= 8
    pd.DataFrame({"ds": pd.date_range("2000", periods=50, freq="MS"), "y": 3.0}).to_csv(tmp_path / "flat.csv")
    with pytest.raises(VqtoolError, match="no windows to train"):
        SyntheticSeries(path=tmp_path / "flat.csv", synthetic=0, own=50)


# ---- the heads


def test_scores_and_values_are_inverse() -> None:
    found = torch.randn(3, 5, len(head.LEVELS)).cumsum(-1).sort(-1).values
    z = torch.randn(3, 7, 5).clamp(-2, 2)
    values = head.at_scores(found, z)
    for path in range(7):
        torch.testing.assert_close(head.score_of(found, values[:, path]), z[:, path], rtol=1e-2, atol=1e-2)


# ---- the forecaster that comes with vqtool


def test_its_quantiles_ascend_and_paths_have_them(model: Model) -> None:
    rng = np.random.default_rng(0)
    rows = [30 + rng.standard_normal(n).cumsum() for n in (4, 40, 90)]
    batch, _, _ = framed(rows, (12, 12), 60)
    task = list(model.tasks.values())[-1]
    levels = [k / 20 for k in range(1, 20)]
    with torch.no_grad():
        quantiles = task.quantiles(model.parts.eval(), batch, 60, levels)[:, :, 0]
        paths = task.forecast(model.parts, batch, 60, samples=19, seeds=[1, 2, 3])[:, :, 0]
        first = task.forecast(model.parts, batch, 25, samples=19, seeds=[1, 2, 3])[:, :, 0]
    assert (quantiles.diff(dim=1) >= -1e-5).all()
    torch.testing.assert_close(paths.sort(1).values, quantiles, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(first, paths[..., :25], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_quantiles_are_those_of_both_networks(model: Model, share: float) -> None:
    batch, _, _ = framed([30 + np.random.default_rng(0).standard_normal(40).cumsum()], (12, 12), 24)
    task = list(model.tasks.values())[-1]
    blend = type(task)(plain_share=share)
    blend.horizon = task.horizon
    with torch.no_grad():
        each = [task._predict(model.parts.eval()[role], batch, 24, forms=forms) for role, forms in
                (("regressor", True), ("plain_regressor", False))]  # fmt: skip
        found = blend.quantiles(model.parts, batch, 24, head.LEVELS)[:, :, 0].transpose(1, 2)
        names, weights = blend.explain(model.parts, batch, 24)
    assert (each[0] - each[1]).abs().max() > 0.1
    torch.testing.assert_close(found, (1 - share) * each[0] + share * each[1], rtol=1e-3, atol=1e-3)
    assert float(weights[0, names.index("mlp")]) == pytest.approx(share)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-4)


def test_neighbouring_steps_of_a_path_go_together(model: Model) -> None:
    walk = 100 + np.random.default_rng(0).standard_normal(80).cumsum()
    batch, _, _ = framed([walk], (1, 1), 12)
    task = list(model.tasks.values())[-1]
    with torch.no_grad():
        paths = task.forecast(model.parts.eval(), batch, 12, samples=200, seeds=[0])[0, :, 0]
    assert torch.corrcoef(paths.T)[range(11), range(1, 12)].mean() > 0.5


def test_codebooks_would_start_from_what_the_quantizer_reads(model: Model) -> None:
    batch = SyntheticSeries(synthetic=64, real=0, valid=8).rows("train").__getitems__(list(range(16)))
    task, seen = AnySeriesTokens(), []
    see = model.parts.quantizer.register_forward_pre_hook(lambda _, given: seen.append(given))
    with torch.no_grad(), see:
        task.step(model.parts, batch)
        z, known = task.latents(model.parts, batch)
    assert known is not None
    assert torch.equal(z, seen[0][0])
    assert torch.equal(known, seen[0][1])


def test_a_file_given_in_the_place_of_a_model_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "D", STAMPS["D"])
    done = within("forecast", str(data), "--steps", "6")
    assert done.returncode == 2
    assert f"hint: is it the series? --data {data}" in done.stderr
    done = within("backtest", "--horizon", "6", "--data", str(tmp_path / "mime.csv"))
    assert f"error: there is no file `{tmp_path / 'mime.csv'}`\n  hint: did you mean `{data}`?" in done.stderr
    assert "taking `forecaster`" not in done.stderr  # before any model is looked for


@pytest.mark.parametrize("freq", STAMPS)
def test_any_frequency_is_forecast_where_nothing_was_trained(freq: str, tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", freq, STAMPS[freq])
    done = within("forecast", "--steps", "60", "--data", str(data), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["series"]
    assert [one["id"] for one in found] == ["a", "b"]
    assert all(len(one["median"]) == 60 and np.isfinite(one["median"]).all() for one in found)
    assert "taking `forecaster`, which comes with vqtool" in done.stderr


def test_the_last_window_shows_who_would_have_been_right(tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "MS", 60)
    done = within("forecast", "--steps", "6", "--data", str(data), "--explain", "--json")
    document = json.loads(done.stdout)
    last = document["last_window"]
    assert set(last["errors"]) == {"model", "naive", "seasonal-naive", "theta", "ridge", "mlp"}
    assert last["best"] == min(last["errors"], key=last["errors"].get)
    assert all(sum(one["weights"].values()) == pytest.approx(1, abs=1e-3) for one in document["series"])
    history = pd.read_csv(data)["a"].to_numpy()
    naive = np.abs(history[-6:] - history[-7]).mean() / np.abs(history[12:-6] - history[:-18]).mean()
    others = pd.read_csv(data)["b"].to_numpy()
    naive += np.abs(others[-6:] - others[-7]).mean() / np.abs(others[12:-6] - others[:-18]).mean()
    assert last["errors"]["naive"] == pytest.approx(naive / 2, rel=1e-3)
    assert "best on this file" in done.stderr


def test_a_backtest_needs_no_run_either(tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "h", 300)
    done = within("backtest", "--horizon", "24", "--n-windows", "3", "--data", str(data), "--json")
    assert done.returncode == 0, done.stderr
    overall = json.loads(done.stdout)["overall"]
    assert {"theta", "mlp", "naive"} <= set(overall["baselines"])
    assert {"mase", "coverage.80", "wql"} <= set(overall["model"])


def test_a_backtest_finds_the_values_that_no_forecast_expects(tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "MS", 80)
    table = pd.read_csv(data)
    table.loc[70, "b"] *= 3
    table.to_csv(data, index=False)
    done = within("backtest", "--horizon", "6", "--n-windows", "5", "--step-size", "3", "--data", str(data),
                  "--anomalies", "4", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["anomalies"]
    assert (found[0]["id"], found[0]["ds"][:10]) == ("b", table["ds"][70])
    assert found[0]["y"] == pytest.approx(table["b"][70])
    sizes = [abs(one["deviation"]) for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1
    assert len({(one["id"], one["ds"]) for one in found}) == len(found) == 4  # each once, however many windows hold it
    assert "values that deviate the most" in done.stderr


@pytest.mark.parametrize(("more", "problem"), [
    (["--anomalies", "-1"], "invalid value for `--anomalies`"),
    (["--anomalies", "3", "--quantiles", "0.5"], "--anomalies measures values by the interval"),
    (["--anomalies", "3", "--greedy"], "--anomalies measures values by the interval"),
])  # fmt: skip
def test_anomalies_need_an_interval(more: list[str], problem: str, tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "MS", 40)
    done = within("backtest", "--horizon", "3", "--data", str(data), *more)
    assert done.returncode == 2
    assert problem in done.stderr


def test_auto_theta_stands_beside_where_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("statsforecast")
    data = file_of(tmp_path / "mine.csv", "MS", 60)
    asked = ["--horizon", "6", "--data", str(data), "-s", "data.auto_theta=true", "--json"]
    errors = json.loads(within("backtest", *asked).stdout)["overall"]["baselines"]
    assert 0 < errors["auto-theta"]["mase"] < 2 * errors["theta"]["mase"]


def test_a_forecast_knows_nothing_of_what_came_later(tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "MS", 60)
    cutoff = ["--steps", "6", "--cutoff", "2003-06-01", "--json"]
    before = json.loads(within("forecast", "--data", str(data), *cutoff).stdout)["series"]
    changed = pd.read_csv(data)
    changed.loc[42:, ["a", "b"]] *= 3
    changed.to_csv(tmp_path / "other.csv", index=False)
    after = json.loads(within("forecast", "--data", str(tmp_path / "other.csv"), *cutoff).stdout)["series"]
    assert before == after


def test_values_that_are_never_negative_stay_so(tmp_path: Path) -> None:
    rare = np.where(np.arange(60) % 7 == 0, 5.0, 0.0)
    pd.DataFrame({"ds": pd.date_range("2000-01-01", periods=60, freq="MS"), "y": rare}).to_csv(tmp_path / "n.csv")
    done = within("forecast", "--steps", "6", "--data", str(tmp_path / "n.csv"), "--json")
    (one,) = json.loads(done.stdout)["series"]
    assert min(one["quantiles"]["0.1"]) >= 0


def test_it_is_trained_on_with_one_command(tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "MS", 80)
    where = ["--from", "forecaster", "-s", f"data.path={data}", "--out", str(tmp_path / "run")]
    done = within("train", *where, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "from forecaster: [" in done.stderr
    done = within("forecast", str(tmp_path / "run"), "--steps", "3", "--data", str(data), "--json")
    assert done.returncode == 0, done.stderr


def test_training_that_makes_it_worse_leaves_it_as_it_was(tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "MS", 80)
    where = ["--from", "forecaster", "-s", f"data.path={data}", "--out", str(tmp_path / "run")]
    done = within("train", *where, *SHORT, "-s", "train.lr=3", "-s", "stage.paths.lr=3")
    assert done.stderr.count("never got better than it started") == 2
    asked = ["--steps", "3", "--data", str(data), "--json"]
    own, shipped = (json.loads(within("forecast", which, *asked).stdout)["series"] for which in
                    (str(tmp_path / "run"), "forecaster"))  # fmt: skip
    assert own == shipped


def test_files_are_read_as_the_hints_of_errors_say(tmp_path: Path) -> None:
    times = [f"1/{1 + i % 12}/{2000 + i // 12}" for i in range(24) for _ in range(2)]
    (tmp_path / "own.csv").write_text("when;sold\n" + "".join(f"{t};1.{500 + i}\n" for i, t in enumerate(times)))
    options = ("time=when", "time_format=%d/%m/%Y", "decimal=,", "repeated=mean")
    asked = [part for option in options for part in ("-s", f"data.{option}")]
    done = within("forecast", "--steps", "2", "--data", "own.csv", *asked, "--json")
    assert done.returncode == 0, done.stderr
    assert 1500 < json.loads(done.stdout)["series"][0]["median"][0] < 1600


def test_what_fills_gaps_in_training_fills_them_in_forecasts(tmp_path: Path) -> None:
    data = file_of(tmp_path / "mine.csv", "MS", 80)
    table = pd.read_csv(data)
    table.loc[40, "a"] = np.nan
    table.to_csv(data, index=False)
    how = ["-s", f"data.path={data}", "-s", "data.fill=ffill", *SHORT]
    trained = within("train", "--from", "forecaster", *how, "--out", str(tmp_path / "run"))
    assert trained.returncode == 0, trained.stderr
    done = within("forecast", str(tmp_path / "run"), "--steps", "3", "--data", str(data))
    assert done.returncode == 0, done.stderr
    assert "held-out" not in trained.stderr  # no metric, no table


@pytest.mark.parametrize("values", [[5.0] * 30, list(range(10))])
def test_without_a_season_of_changes_the_last_window_shows_mae(values: list[float], tmp_path: Path) -> None:
    stamps = pd.date_range("2000-01-01", periods=len(values), freq="MS")
    pd.DataFrame({"ds": stamps, "y": values}).to_csv(tmp_path / "own.csv", index=False)
    last = json.loads(within("forecast", "--steps", "3", "--data", "own.csv", "--json").stdout)["last_window"]
    assert last["metric"] == "mae"
    assert last["best"] == min(last["errors"], key=last["errors"].get)


def test_train_without_a_recipe_names_what_has_one() -> None:
    done = vqtool("train")
    assert done.returncode == 2
    assert "--from forecaster" in done.stderr
    assert "there is no checkpoint or run `nonsense`" in vqtool("train", "--from", "nonsense").stderr


def test_it_is_shown_and_diagnosed_by_its_name() -> None:
    """Its moving averages are stored as float16, in which their sum overflows."""
    assert "any-series-paths" in within("show", "forecaster").stdout
    assert 0 < json.loads(within("diagnose", "forecaster", "--json").stdout)["tokens"] < 1e9
    assert within("export", "forecaster", "--to", "fp16").returncode == 0
    assert Path("forecaster.fp16.safetensors").is_file()


def test_it_is_small() -> None:
    folder = Path(str(library.load("forecaster").path)).parent
    assert (folder / "forecaster.safetensors").stat().st_size <= 1_200_000
    assert (folder / "README.md").is_file()
