"""Draws pictures of results: `python docs/results.py docs/images RUNS`.

RUNS is a folder with trained runs of the shipped recipes: `voltage`, `semcom`, `seismic-tiny`, `codec`, `images`
and `semcom-pictures`. `python docs/results.py docs/images RUNS semcom-pictures` draws the picture of the last alone.
Every signal shown is held out: a voltage of median error (in its own picture, also of the 10th and 90th percentile),
the first test record with three labels, the first test clip, the first test pictures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

import vqtool
from vqtool.model.data import open_data

mpl.use("agg")
import matplotlib.pyplot as plt  # after the backend is chosen

BLUE, GREY = "#1f77b4", "#444444"


def held_out(run: Path, split: str, rows: list[int]) -> tuple[Any, dict[str, torch.Tensor]]:
    """A run's model, and rows of a split of its data as a batch."""
    model = vqtool.load(run)
    return model, open_data(model.recipe).rows(split).__getitems__(rows)


def voltages(places: Any, run: Path, percentiles: tuple[int, ...]) -> None:
    """Periods of a voltage, measured and generated from the current alone: of given percentiles of the error."""
    model, batch = held_out(run, "test_random", list(range(101)))
    found = model.generate({name: value for name, value in batch.items() if name != "x" and name in model.spec.fields})
    error = (found - batch["x"]).square().sum((1, 2)).sqrt() / batch["x"].square().sum((1, 2)).sqrt()
    degrees = np.linspace(0, 360, batch["x"].shape[-1], endpoint=False)
    for axes, percentile in zip(places, percentiles, strict=True):
        row = int(error.argsort()[percentile])
        axes.plot(degrees, batch["x"][row, 0], color=GREY, lw=3, alpha=0.35, label="measured")
        axes.plot(degrees, found[row, 0], color=BLUE, lw=1.3, label="generated from the current")
        wide = "voltage of a magnetic component, " if len(percentiles) == 1 else ""
        axes.set_title(f"{wide}error {100 * float(error[row]):.1f} %")
        axes.set(xlabel="phase in degrees", ylabel="V", xticks=range(0, 361, 90))
    places[0].legend(frameon=False)


def link(axes: Any, run: Path) -> None:
    """Accuracy over a noisy channel, beside thumbnails sent over it and the network without a channel."""
    scores = json.loads((run / "summary.json").read_text(encoding="utf-8"))["splits"]["test"]
    levels = [3, 6, 12]
    curves = {"16 codes of a picture": scores["model"], "thumbnails": scores["baselines"]["pixels"]}
    for (name, figures), colour in zip(curves.items(), (BLUE, GREY), strict=True):
        axes.plot(levels, [100 * figures[f"accuracy.hard.{at}db"] for at in levels], "o-", color=colour, label=name)
    axes.axhline(100 * scores["model"]["accuracy.no-channel"], color=GREY, ls=":", lw=1, label="without a channel")
    axes.set_title("pictures classified after a noisy channel")
    axes.set(xlabel="Es/N0 in dB", ylabel="accuracy in %", xticks=levels)
    axes.legend(frameon=False)


def seismogram(axes: Any, run: Path) -> None:
    """The vertical component of an earthquake, coloured by the code of each token."""
    model = vqtool.load(run)
    rows = open_data(model.recipe).rows("test")
    batch = next(b for b in (rows.__getitems__([i]) for i in range(len(rows))) if has_waves(b))
    found = model.embed({name: value for name, value in batch.items() if name in model.spec.fields})
    codes = found["codes"][0, :, 0].numpy()
    trace = batch["x"][0, 0].numpy()
    seconds = len(trace) / float(model.spec.sample_rate or 1.0)
    vectors = model.parts.quantizer.vectors()[0].detach().numpy()
    axis = np.linalg.svd(vectors - vectors.mean(0))[2][0]  # similar codes get similar colours
    colours = plt.get_cmap("turbo")((vectors @ axis).argsort().argsort() / len(vectors))
    edges = np.linspace(0, seconds, len(codes) + 1)
    low = -1.35 * np.abs(trace).max()
    for token, code in enumerate(codes.tolist()):
        axes.axvspan(edges[token], edges[token + 1], 0, 0.12, color=colours[code], lw=0)
    axes.plot(np.linspace(0, seconds, len(trace)), trace, color=GREY, lw=0.6)
    axes.set_title("an earthquake and its codes, learned without labels")
    axes.set(xlabel="seconds", yticks=[], ylim=(low, -low * 0.85), xlim=(0, seconds))


def has_waves(batch: dict[str, torch.Tensor]) -> bool:
    """Whether a window has more than one label: noise and an arrival, say."""
    labels = batch.get("phase", batch.get("label"))
    return labels is not None and labels[labels >= 0].unique().numel() > 2


def codec(top: Any, bottom: Any, run: Path) -> None:
    """The spectrograms of a sentence before and after the codec."""
    model, batch = held_out(run, "test", [0])
    back = model.decode(model.encode(batch, levels=6), {name: v for name, v in batch.items() if name != "x"})
    rate = float(model.spec.sample_rate)
    for axes, sound, title in ((top, batch["x"], "speech"), (bottom, back, "decoded at about 10 kbit/s")):
        axes.specgram(sound[0, 0].numpy() + 1e-6, NFFT=512, Fs=rate, noverlap=384, cmap="magma", vmin=-120, vmax=-30)
        axes.set(ylim=(0, 8000), yticks=[0, 4000, 8000], yticklabels=["0", "4", "8 kHz"])
        axes.set_title(title)
    top.set_xticks([])
    bottom.set_xlabel("seconds")


def pictures(places: Any, run: Path) -> None:
    """Pictures, above, and what their codes decode to, below."""
    model, batch = held_out(run, "test", list(range(places.shape[1])))
    back = model.decode(model.encode(batch), {name: v for name, v in batch.items() if name != "x"})
    for row, (title, shown) in enumerate({"pictures": batch["x"], "decoded": back}.items()):
        for axes, picture in zip(places[row], shown, strict=True):
            axes.imshow(picture[0], cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        places[row, 0].set_ylabel(title)


def received(folder: Path, run: Path) -> None:
    """PSNR of pictures over a noisy channel, beside JPEG compressed for one state of it; and some as they arrive."""
    scores = json.loads((run / "summary.json").read_text(encoding="utf-8"))["splits"]["test"]
    shown, levels = 6, [0, 3, 6, 12, 18]
    figure = plt.figure(figsize=(11, 4), layout="constrained")
    grid = figure.add_gridspec(4, shown + 8)
    axes = figure.add_subplot(grid[:, :7])
    axes.plot(levels, [scores["model"][f"psnr.db.{at}db"] for at in levels], "o-", color=BLUE, label="one model")
    for name, figures in scores["baselines"].items():
        at = float(name.split("=")[1])
        steps = sorted({*levels, at - 1e-3, at})
        before, after = min(figures[f"psnr.db.{one}db"] for one in levels), figures["psnr.db.no-channel"]
        label = "JPEG at capacity, for one Es/N0" if at == 0 else None
        axes.plot(steps, [after if one >= at else before for one in steps], color=GREY, lw=1, label=label)
    axes.set(xlabel="Es/N0 in dB", ylabel="PSNR in dB", xticks=levels)
    axes.set_title("pictures after a noisy channel")
    axes.legend(frameon=False)
    model, batch = held_out(run, "test", list(range(shown)))
    torch.manual_seed(0)
    rows = {"sent": batch["x"], **{f"{at} dB": model.transmit(batch["x"], float(at)) for at in (12, 6, 0)}}
    for row, (title, some) in enumerate(rows.items()):
        for column, picture in enumerate(some):
            place = figure.add_subplot(grid[row, 8 + column])
            place.imshow(picture[0], cmap="gray", vmin=0, vmax=1)
            place.set(xticks=[], yticks=[], ylabel="" if column else title)
    figure.savefig(folder / "semcom-pictures.png", dpi=110)


def main() -> None:
    """Draw and write the pictures."""
    folder, runs = Path(sys.argv[1]), Path(sys.argv[2])
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
    received(folder, runs / "semcom-pictures")
    if sys.argv[3:] == ["semcom-pictures"]:
        return
    figure = plt.figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(4, 2)
    voltages([figure.add_subplot(grid[:2, 0])], runs / "voltage", (50,))
    link(figure.add_subplot(grid[:2, 1]), runs / "semcom")
    seismogram(figure.add_subplot(grid[2:, 0]), runs / "seismic-tiny")
    codec(figure.add_subplot(grid[2, 1]), figure.add_subplot(grid[3, 1]), runs / "codec")
    figure.savefig(folder / "results.png", dpi=110)

    figure, places = plt.subplots(1, 3, figsize=(11, 3.1), layout="constrained")
    voltages(places, runs / "voltage", (10, 50, 90))
    figure.savefig(folder / "voltage.png", dpi=110)

    figure, places = plt.subplots(2, 10, figsize=(11, 2.4), layout="constrained")
    pictures(places, runs / "images")
    figure.savefig(folder / "images.png", dpi=110)


if __name__ == "__main__":
    main()
