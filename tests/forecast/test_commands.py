"""`vqtool forecast` and `vqtool backtest`, by a toy forecaster: the laws, files, what is said, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.cli.run import vqtool, within
from tests.forecast import laws
from tests.forecast.laws import backtest, forecast
from tests.forecast.tiny import PLUGIN, frame, long, write_recipe
from vqtool.catalog import use_files
from vqtool.commands import train
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.model.load import load as load_model


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> Iterator[None]:
    """The toy forecaster is there for this module alone."""
    use_files([PLUGIN])
    yield
    use_files([])


def trained(folder: Path, data: str = "") -> Path:
    """A run of the tiny recipe."""
    recipe = write_recipe(folder, data)
    assert train.run(recipe=recipe, overrides=[], out_dir=folder / "run", seed=None, device="cpu", stage=None) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all."""
    return trained(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_the_laws_of_forecasts(law: Callable[[Path, Path], None], run: Path, tmp_path: Path) -> None:
    law(run, tmp_path)


def test_the_laws_hold_of_joint_channels_too(tmp_path: Path) -> None:
    joint = trained(tmp_path, 'channels = "joint"')
    for law in (laws.no_look_ahead, laws.a_backtest_is_forecasts_of_what_was_known):
        law(joint, tmp_path)
    frame().drop(columns="b").to_csv(tmp_path / "half.csv", index=False)
    with pytest.raises(VqtoolError, match="reads 2 series together; the file does not have `b`"):
        forecast(joint, tmp_path / "f.csv", 3, data=tmp_path / "half.csv")


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.parquet"])
def test_files_go_on_where_the_series_end(run: Path, tmp_path: Path, name: str) -> None:
    table = forecast(run, tmp_path / name, 3)
    assert list(table.columns) == ["unique_id", "ds", "median", *(f"q0.{k}" for k in range(1, 10))]
    expected = ["2020-03-26 00:00:00", "2020-03-26 01:00:00", "2020-03-26 02:00:00"]
    assert list(table.ds.astype(str)) == expected * 2
    assert list(table.unique_id) == ["a"] * 3 + ["b"] * 3
    last = frame().iloc[-1]
    assert abs(table["median"].iloc[0] - last.a) < 1
    assert abs(table["median"].iloc[3] - last.b) < 1e-3
    if name == "f.parquet":
        assert str(table.ds.dtype).startswith("datetime64")


def test_a_history_in_every_layout_says_the_same(run: Path, tmp_path: Path) -> None:
    table = frame()
    expected = forecast(run, tmp_path / "w.csv", 4)
    long(table).to_parquet(tmp_path / "long.parquet")
    named = long(table).rename(columns={"unique_id": "item", "ds": "when", "y": "sold"})
    named.to_csv(tmp_path / "named.csv.gz", index=False)
    own = ["data.layout=long", "data.id=item", "data.time=when", "data.target=sold"]
    for file, overrides in (("long.parquet", []), ("named.csv.gz", own)):
        again = forecast(run, tmp_path / "l.csv", 4, data=tmp_path / file, overrides=overrides)
        pd.testing.assert_frame_equal(expected, again)


def test_a_name_is_no_formula_and_no_mathematics(run: Path, tmp_path: Path) -> None:
    names = {"a": '=HYPERLINK("http://x")', "b": r"@sum $\no{math$"}
    table = long(frame()).replace({"unique_id": names})
    table.to_csv(tmp_path / "own.csv", index=False)
    result = forecast(run, tmp_path / "f.csv", 2, data=tmp_path / "own.csv", plot=tmp_path / "f.png")
    assert list(result.unique_id.unique()) == ["'" + name for name in names.values()]
    packed = forecast(run, tmp_path / "f.parquet", 2, data=tmp_path / "own.csv")
    assert list(packed.unique_id.unique()) == list(names.values())
    table.assign(unique_id="'" + table.unique_id).to_csv(tmp_path / "own.csv", index=False)  # as vqtool writes them
    again = forecast(run, tmp_path / "f.parquet", 2, data=tmp_path / "own.csv")
    assert list(again.unique_id.unique()) == list(names.values())


def test_what_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = long(frame()).replace({"unique_id": {"b": "new"}})
    table.loc[table.unique_id == "new", "y"] *= -1
    table.to_csv(tmp_path / "own.csv", index=False)
    forecast(run, tmp_path / "f.csv", 13, data=tmp_path / "own.csv", plot=tmp_path / "f.png")
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'f.csv'}\n"
    for sentence in (
        "frequency `h`, inferred from 600 time stamps",
        "not among the trained series, so scaled by their own history: `new`",
        "warning: 13 steps are more than the 12 that the model was trained for",
        "13 steps after 2020-03-25 23:00:00",
    ):
        assert sentence in captured.err
    assert "▁" in captured.err
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"


def test_the_document_of_a_forecast(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mode = "json"
    table = forecast(run, tmp_path / "f.csv", 2, quantiles="0.9,.1")
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    first = result["series"][0]
    assert (first["id"], first["cutoff"]) == ("a", "2020-03-25 23:00:00")
    assert first["ds"] == ["2020-03-26 00:00:00", "2020-03-26 01:00:00"]
    assert first["median"] == list(table["median"][:2])
    assert first["quantiles"] == {"0.1": list(table["q0.1"][:2]), "0.9": list(table["q0.9"][:2])}


def test_the_document_of_a_backtest(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mode = "json"
    table = backtest(run, tmp_path / "b.parquet", 5, 4, step_size=3, cutoff="2020-03-25 20:00")
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["cutoffs"] == [f"2020-03-25 {hour:02d}:00:00" for hour in (6, 9, 12, 15)]
    assert (result["horizon"], result["n_windows"], result["step_size"]) == (5, 4, 3)
    assert set(result["overall"]["baselines"]) == {"naive", "seasonal-naive", "seasonal-mean", "ridge-forecast"}
    assert set(result["series"]) == {"a", "b"}
    for scores in (result["overall"], *result["series"].values()):
        assert {"mse", "mae", "rmse", "smape", "mase", "rmsse", "pinball", "wql", "coverage.80", "width.80"} <= set(
            scores["model"]
        )
    for name, column in (("model", "median"), *((n, n) for n in result["overall"]["baselines"])):
        error = (table[column] - table.y)[table.unique_id == "a"]
        scores = result["series"]["a"]
        found = (scores["model"] if name == "model" else scores["baselines"][name])["mae"]
        assert found == pytest.approx(error.abs().mean())
    season = table.merge(long(frame()).assign(ds=lambda t: pd.to_datetime(t.ds) + pd.Timedelta(days=1)), "left",
                         on=["unique_id", "ds"], suffixes=("", "_before"))  # fmt: skip
    np.testing.assert_allclose(season["seasonal-naive"], season.y_before)


def test_a_backtest_of_trained_rows_is_no_held_out_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """600 rows, 420 of them to train on: the last is 2020-03-18 11:00."""
    out.mode = "json"
    frame().to_csv(tmp_path / "copy.csv", index=False)
    trained = run.parent / "series.csv"
    for cutoff, data, seen in (
        (None, None, 0),
        ("2020-03-18 19:00", None, 4),  # windows that begin at 8, 11, 14 and 17 o'clock
        ("2020-03-18 19:00", trained, 4),
        ("2020-03-18 10:00", trained, 8),
        ("2020-03-18 10:00", tmp_path / "copy.csv", None),  # of another file nothing is known
    ):
        backtest(run, tmp_path / "b.csv", 3, 4, cutoff=cutoff, data=data)
        captured = capsys.readouterr()
        assert json.loads(captured.out)["windows_trained_on"] == seen
        result = f"warning: {seen} of 8 windows lie in rows that the model was trained on: no held-out scores"
        assert (result in " ".join(captured.err.split())) == bool(seen)
        assert ("trained on:" in captured.err) == bool(seen)


def test_the_baselines_know_nothing_of_later_than_the_first_cutoff(run: Path, tmp_path: Path) -> None:
    first = backtest(run, tmp_path / "b.csv", 4, 3)
    table = frame()
    table.loc[600 - 12 :, ["a", "b"]] += 100
    table.to_csv(tmp_path / "later.csv", index=False)
    other = backtest(run, tmp_path / "c.csv", 4, 3, data=tmp_path / "later.csv")
    for name in ("naive", "seasonal-naive", "seasonal-mean", "ridge-forecast", "median"):
        begin = first.cutoff == first.cutoff.min()
        np.testing.assert_array_equal(first[name][begin], other[name][begin])


def months(values: np.ndarray) -> pd.DataFrame:
    """A monthly series `milk`."""
    stamps = pd.date_range("1990-01-31", periods=len(values), freq="ME")
    return pd.DataFrame({"unique_id": "milk", "ds": stamps.strftime("%Y-%m-%d"), "y": values})


def test_a_calendar_that_the_model_does_not_know(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    months(np.sin(np.arange(100.0))).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(VqtoolError, match="the file steps by `ME`; the model was trained on steps of `h`") as caught:
        forecast(run, tmp_path / "f.csv", 3, data=tmp_path / "m.csv")
    assert caught.value.hint == "--freq ME to forecast it anyway"
    table = forecast(run, tmp_path / "f.csv", 3, data=tmp_path / "m.csv", freq="M")
    assert list(table.ds) == ["1998-05-31", "1998-06-30", "1998-07-31"]
    assert "the model was trained on steps of `h`; these are of `ME`" in capsys.readouterr().err


def test_gaps_are_filled_when_asked(run: Path, tmp_path: Path) -> None:
    table = frame()
    table.loc[590, "a"] = np.nan
    table.drop(index=595).to_csv(tmp_path / "gap.csv", index=False)
    with pytest.raises(VqtoolError, match="series `a`: 1 row is missing; the first after row 595"):
        forecast(run, tmp_path / "f.csv", 3, data=tmp_path / "gap.csv")
    for fill in ("ffill", "interp"):
        forecast(run, tmp_path / "f.csv", 3, data=tmp_path / "gap.csv", fill=fill)
        inside = backtest(run, tmp_path / "b.csv", 5, 1, data=tmp_path / "gap.csv", fill=fill)  # cutoff beside the gap
        alone = forecast(run, tmp_path / "f.csv", 5, data=tmp_path / "gap.csv", fill=fill, cutoff=inside.cutoff[0])
        pd.testing.assert_frame_equal(laws.told(inside), laws.told(alone), check_exact=True)


def test_the_file_that_was_trained_on_can_be_encoded(tmp_path: Path) -> None:
    """With its own names of columns, dates and gaps; another file as `-s` says."""
    recipe = write_recipe(tmp_path, 'layout = "long"\nid = "item"\ntime = "when"\ntarget = "sold"\nfill = "ffill"\n'
                                    'time_format = "%d/%m/%Y %H"\nseries = ["a"]')  # fmt: skip
    table = long(frame()).rename(columns={"unique_id": "item", "ds": "when", "y": "sold"}).drop(index=590)
    other = tmp_path / "other.csv"
    table.to_csv(other, index=False)
    table = table.assign(when=pd.to_datetime(table.when).dt.strftime("%d/%m/%Y %H"))
    table.to_csv(tmp_path / "series.csv", index=False)
    assert train.run(recipe=recipe, overrides=[], out_dir=tmp_path / "run", seed=None, device="cpu", stage=None) == 0
    codes, back = tmp_path / "codes.safetensors", tmp_path / "back.csv"
    for file, names in ((tmp_path / "series.csv", ["a"]), (other, ["a", "b"])):
        done = within("encode", tmp_path / "run", file, "--out", codes, "--plugin", PLUGIN)
        assert done.returncode == 0, done.stderr
        assert within("decode", tmp_path / "run", codes, "--out", back, "--force", "--plugin", PLUGIN).returncode == 0
        again = pd.read_csv(back)
        assert list(again.unique_id.unique()) == names
        assert (again.unique_id.value_counts() == 576).all()
        assert again.ds.iloc[-1] == "2020-03-25 23:00:00"
    table.rename(columns={"when": "day"}).to_csv(other, index=False)
    named = ["encode", tmp_path / "run", other, "--out", codes, "--plugin", PLUGIN]
    assert "needs the column `when`" in within(*named).stderr
    asked = ["-s", "data.time=day", "-s", "data.time_format=%d/%m/%Y %H"]
    assert within(*named, *asked).returncode == 0


def test_a_backtest_scores_what_was_measured(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mode = "json"
    table = frame()
    table.loc[[590, 591], "a"] = [np.nan, -999]
    table.drop(index=595).to_csv(tmp_path / "gap.csv", index=False)
    results = []
    for fill in ("ffill", "interp"):
        windows = backtest(run, tmp_path / "b.csv", 6, 2, data=tmp_path / "gap.csv", fill=fill)
        assert list(windows.ds[windows.y.isna() & (windows.unique_id == "a")].str[11:13]) == ["14", "15", "19"]
        assert list(windows.ds[windows.y.isna() & (windows.unique_id == "b")].str[11:13]) == ["19"]
        printed = capsys.readouterr()
        assert "4 of 24 values to forecast were filled in, not measured, and are not scored" in printed.err
        results.append(json.loads(printed.out)["series"]["a"])
        off = (windows["median"] - windows.y)[windows.unique_id == "a"]
        assert results[-1]["model"]["mae"] == pytest.approx(off.abs().mean())
    assert (tmp_path / "b.csv").read_text().count(",,") == 4


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"quantiles": "0.1,1"}, "are not quantiles"),
    ({"quantiles": "a"}, "are not quantiles"),
    ({"greedy": True, "top_k": 3}, "--greedy and sampling exclude each other"),
    ({"cutoff": "2020-03-01 05:00"}, "has 6 rows, up to 2020-03-01 05:00:00; the model reads 48"),
    ({"data": Path("none.csv")}, "there is no file `none.csv`"),
    ({"overrides": ["encoder.dim=4"]}, r"only options of \[data\] can be set here"),
    ({"overrides": ["data.nothing=4"]}, "has no option `nothing`"),
    ({"fill": "spline"}, "`fill` should be"),
    ({"freq": "fortnight"}, "`fortnight` is not a frequency"),
    ({"overrides": ["data.time=when"]}, "there is no column `when`"),
]


@pytest.mark.parametrize(("asked", "message"), REFUSED, ids=[message[:25] for _, message in REFUSED])
def test_what_is_refused(run: Path, tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(VqtoolError, match=message):
        forecast(run, tmp_path / "f.csv", 3, **asked)
    assert not (tmp_path / "f.csv").exists()


def test_names_of_files_are_checked(run: Path, tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match=r"cannot write a table as `f\.xlsx`"):
        forecast(run, tmp_path / "f.xlsx", 3)
    with pytest.raises(VqtoolError, match="no folder"):
        forecast(run, tmp_path / "none" / "f.csv", 3)
    with pytest.raises(VqtoolError, match=r"cannot draw a picture as `f\.docx`"):
        forecast(run, tmp_path / "f.csv", 3, plot=tmp_path / "f.docx")
    with pytest.raises(VqtoolError, match=r"rows, up to .*; the model reads 48, and the windows another 600"):
        backtest(run, tmp_path / "f.csv", 6, 100)


def test_the_newest_run_that_can(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VqtoolError, match="which series should be forecast"):
        forecast(None, tmp_path / "f.csv", 3)  # type: ignore[arg-type]
    assert "no run under `runs/` can forecast: taking `forecaster`" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    able = trained(tmp_path)
    able.rename(tmp_path / "runs" / "able")
    other = write_recipe(tmp_path)
    other.write_text(other.read_text().replace('task = "walk"', 'task = "autoencode"'))
    train.run(recipe=other, overrides=[], out_dir=tmp_path / "runs" / "unable", seed=None, device="cpu", stage=None)
    capsys.readouterr()
    forecast(None, tmp_path / "f.csv", 3)  # type: ignore[arg-type]
    assert "taking the newest run that can forecast: runs/able/walk.safetensors" in capsys.readouterr().err
    with pytest.raises(VqtoolError, match="cannot forecast; it was trained with `autoencode`"):
        forecast(tmp_path / "runs" / "unable", tmp_path / "f.csv", 3)


def test_a_new_process_says_the_same_bit_for_bit(run: Path, tmp_path: Path) -> None:
    forecast(run, tmp_path / "here.csv", 5, samples=100)
    done = vqtool("forecast", run, "--steps", 5, "--out", tmp_path / "there.csv", "--plugin", PLUGIN)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


def test_a_refusal_is_one_reason_and_an_exit_code(run: Path, tmp_path: Path) -> None:
    refused = within("backtest", run, "--horizon", 5, "--data", tmp_path / "none.csv", "--plugin", PLUGIN)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"error: there is no file `{tmp_path / 'none.csv'}`\n"


def test_python_users_get_what_the_command_writes(run: Path, tmp_path: Path) -> None:
    """`Model.forecast` of a DataFrame, of one with its time stamps as index, and of a path, to the last digit."""
    forecast(run, tmp_path / "f.csv", 4, data=written(tmp_path))
    wanted = pd.read_csv(tmp_path / "f.csv").astype({"unique_id": str, "ds": str})
    model = load_model(run)
    wide = frame()
    for series in (wide, wide.set_index(wide.columns[0]), tmp_path / "in.csv", str(tmp_path / "in.csv")):
        found = model.forecast(series, 4, samples=12)
        assert list(found.columns) == list(wanted.columns)
        pd.testing.assert_frame_equal(found.astype({"unique_id": str, "ds": str}), wanted, check_exact=False, rtol=1e-9)
    assert model.forecast(wide, 2, quantiles=[0.2], samples=12).columns.tolist() == [
        "unique_id",
        "ds",
        "median",
        "q0.2",
    ]
    with pytest.raises(VqtoolError, match="--greedy and sampling exclude each other"):
        model.forecast(wide, 2, greedy=True, top_k=3)


@pytest.mark.parametrize(("given", "message"), [
    ({"steps": 0}, "`steps` should be"), ({"steps": 2.5}, "`steps` should be"), ({"steps": "3"}, "`steps` should be"),
    ({"quantiles": [0, 2]}, "are not quantiles"), ({"quantiles": 0.5}, "are not quantiles"),
    ({"series": [1.0, 2.0]}, "a pandas DataFrame or the path of a file, not list"),
])  # fmt: skip
def test_wrong_arguments_in_python_are_one_error(run: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(VqtoolError, match=message):
        load_model(run).forecast(**{"series": frame(), "steps": 2, **given})


def written(folder: Path) -> Path:
    frame().to_csv(folder / "in.csv", index=False)
    return folder / "in.csv"


def test_names_do_not_matter_and_short_or_odd_series_do_not_stop_the_rest(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Series of a known name or another are forecast alike; a short one is left out; an outlier does no harm."""
    values = 50 + 20 * frame(seed=5).a.to_numpy()
    stamps = frame().date
    results = [forecast(run, tmp_path / "f.csv", 4, data=save(tmp_path, pd.DataFrame({"date": stamps, name: values})))
            for name in ("a", "mine")]  # fmt: skip
    np.testing.assert_allclose(results[0]["median"], results[1]["median"], rtol=0.02)  # other random paths
    long_one = pd.DataFrame({"unique_id": "whole", "ds": stamps, "y": values})
    short = long_one.tail(20).assign(unique_id="short")
    capsys.readouterr()
    table = forecast(run, tmp_path / "f.csv", 4, data=save(tmp_path, pd.concat([long_one, short])))
    assert list(table.unique_id.unique()) == ["whole"]
    assert "warning: 1 of 2 series are too short and left out: series `short` has 20 rows" in " ".join(
        capsys.readouterr().err.split()
    )
    values[590] = 1e9
    table = forecast(run, tmp_path / "f.csv", 4, data=save(tmp_path, pd.DataFrame({"date": stamps, "v": values})))
    assert "likely an error; forecasts do not read it" in " ".join(capsys.readouterr().err.split())
    assert table["median"].between(0, 1000).all()


def test_the_rest_is_backtested_and_encoded_too(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One series is too short and one has a gap: both are counted in warnings, the others are scored and encoded."""
    whole = long(frame())
    short = whole[whole.unique_id == "a"].tail(30).assign(unique_id="short")
    broken = whole[whole.unique_id == "b"].drop(index=whole.index[-5]).assign(unique_id="broken")
    path = save(tmp_path, pd.concat([whole, short, broken]))
    table = backtest(run, tmp_path / "b.csv", 6, 2, data=path)
    assert list(table.unique_id.unique()) == ["a", "b"]
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: 1 of 4 series left out: series `broken`: 1 row is missing" in said
    assert "warning: 1 of 3 series are too short and left out: series `short` has 30 rows" in said
    done = within("encode", run, path, "--out", tmp_path / "codes.safetensors", "--plugin", PLUGIN)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "warning: 1 of 4 series left out: series `broken`: 1 row is missing" in said
    assert "warning: 1 of 3 series are too short and left out: series `short` has 30 rows" in said
    back = tmp_path / "back.csv"
    assert within("decode", run, tmp_path / "codes.safetensors", "--out", back, "--plugin", PLUGIN).returncode == 0
    assert list(pd.read_csv(back).unique_id.unique()) == ["a", "b"]


def save(folder: Path, table: pd.DataFrame) -> Path:
    """The table as a CSV file."""
    table.to_csv(folder / "own.csv", index=False)
    return folder / "own.csv"


def test_the_hints_of_a_decimal_mark_and_of_counted_rows_are_understood_by_the_command(
    run: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.csv").write_text("a;b\n" + "".join(f"1.{500 + i % 24};{i % 24}\n" for i in range(100)))
    for mark, low in ((",", 1500), (".", 1.5)):
        options = ["data.time=#", f"data.decimal={mark}"]
        table = forecast(run, tmp_path / "f.csv", 2, data=tmp_path / "own.csv", overrides=options, freq="1")
        assert list(table.ds[:2]) == [101, 102]
        assert abs(table["median"][0] / low - 1) < 0.1
