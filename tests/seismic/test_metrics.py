"""Metrics and baselines of the field: perfect, useless and leaking tokens get the figures they deserve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vqtool.api import Baseline, Batch, Metric
from vqtool.api.loss import reads
from vqtool_seismic.baselines.kmeans import Kmeans
from vqtool_seismic.baselines.log_spectrogram import LogSpectrogram
from vqtool_seismic.baselines.sta_lta import StaLta
from vqtool_seismic.data.seisbench import Seisbench
from vqtool_seismic.detection import sta_lta
from vqtool_seismic.metrics.event_auc import EventAuc, shares
from vqtool_seismic.metrics.phase_agreement import PhaseAgreement
from vqtool_seismic.metrics.phase_probe import PhaseProbe
from vqtool_seismic.spectra import log_spectra


@pytest.fixture(scope="module")
def data(folder: Path) -> Seisbench:
    return Seisbench(path=folder, window=1024)


def batches(data: Seisbench, split: str, size: int = 16) -> list[Batch]:
    rows = data.rows(split)
    return [rows.__getitems__(list(range(i, min(i + size, len(rows))))) for i in range(0, len(rows), size)]


def measured(metric: Metric, data: Seisbench, what: object, *, learn: bool = True) -> dict[str, float]:
    """The metric of what `what(batch)` gives, on the held-out rows."""
    for split, take in (("train", "learn"), ("dev+test", "update")):
        if take == "learn" and not (learn and metric.learns):
            continue
        for batch in batches(data, split):
            named = {**batch, **what(batch)}  # type: ignore[operator]
            needs, takes = reads(getattr(metric, take))
            getattr(metric, take)(**{n: named[n] for n in (needs | takes) & named.keys()})
    return dict(metric.compute())


def oracle(batch: Batch) -> dict[str, object]:
    codes = batch["phase"].clamp_min(0)[..., None]
    features = torch.nn.functional.one_hot(codes[..., 0], 4).float()
    return {"codes": codes, "codebook_sizes": (4,), "features": features, "context": features}


def blind(batch: Batch) -> dict[str, object]:
    return {"codes": torch.zeros_like(batch["phase"])[..., None], "codebook_sizes": (4,)}


@pytest.mark.parametrize("learn", [True, False])
def test_the_probe_of_perfect_and_of_collapsed_tokens(data: Seisbench, learn: bool) -> None:
    middle = "" if learn else ".folds"
    best = measured(PhaseProbe(data.spec), data, oracle, learn=learn)
    for name in ("probe", "probe.features", "probe.context"):
        assert best[f"{name}{middle}.macro_f1"] == 1
    assert best[f"probe{middle}.f1.p"] == 1
    assert best["probe.frames"] > 100
    assert best["probe.stations"] == 3
    worst = measured(PhaseProbe(data.spec), data, blind, learn=learn)
    assert worst[f"probe{middle}.macro_f1"] < 0.25


def test_the_probe_is_fitted_on_training_stations_alone(data: Seisbench) -> None:
    """Codes that mean one thing in training and another in the held-out rows: only a leak would read them."""
    known = torch.tensor(data.rows("train").station).unique()

    def turned(batch: Batch) -> dict[str, object]:
        moved = torch.isin(batch["station"], known).long()
        return {"codes": ((batch["phase"].clamp_min(0) + moved[:, None]) % 4)[..., None], "codebook_sizes": (4,)}

    assert measured(PhaseProbe(data.spec), data, turned)["probe.macro_f1"] < 0.05


def test_agreement_and_its_null(data: Seisbench) -> None:
    result = measured(PhaseAgreement(data.spec), data, oracle)
    assert result["codes.ami"] == pytest.approx(1)
    assert result["codes.ami.rolled"] < 0.5
    assert abs(measured(PhaseAgreement(data.spec), data, blind)["codes.ami"]) < 1e-6


def test_events_are_distinguished_from_noise_by_tokens_or_by_a_score(data: Seisbench) -> None:
    def loud(batch: Batch) -> dict[str, object]:
        energy = batch["x"].unflatten(-1, (-1, 32)).square().mean((1, 3))
        return {
            "codes": (energy > 20 * energy.median(1, keepdim=True).values).long()[..., None],
            "codebook_sizes": (2,),
        }

    assert measured(EventAuc(data.spec), data, loud)["auc.event"] > 0.95
    assert measured(EventAuc(data.spec), data, loud, learn=False)["auc.event.folds"] > 0.95
    assert measured(EventAuc(data.spec), data, blind)["auc.event"] == 0.5
    score = measured(EventAuc(data.spec), data, lambda batch: {"event_score": -batch["event"].double()})
    assert score["auc.event"] == 0


def test_shares_of_codes() -> None:
    codes = torch.tensor([[[0, 1], [0, -1], [1, 1], [-1, 0]]])
    assert shares(codes, (2, 3)).tolist() == [[0.5, 0.25, 0.25, 0.5, 0]]


def test_without_labels_nothing_is_claimed(data: Seisbench) -> None:
    def no_label(batch: Batch) -> dict[str, object]:
        nothing = {name: torch.full_like(batch[name], -1) for name in ("phase", "event")}
        return oracle(batch) | nothing

    for metric in (PhaseProbe, PhaseAgreement, EventAuc):
        assert measured(metric(data.spec), data, no_label) == {}


@pytest.mark.parametrize("baseline", [Kmeans, LogSpectrogram, StaLta])
def test_baselines_are_better_than_chance(data: Seisbench, baseline: type[Baseline]) -> None:
    model = baseline(data.spec, codes=40) if baseline is Kmeans else baseline(data.spec)
    model.fit(data.rows("train"))
    if baseline is StaLta:
        assert measured(EventAuc(data.spec), data, model.predict)["auc.event"] > 0.9
        return
    result = measured(PhaseProbe(data.spec), data, model.predict)
    name = "probe" if baseline is Kmeans else "probe.features"
    assert result[f"{name}.macro_f1"] > 0.5


def test_a_spectrum_is_of_its_own_frame() -> None:
    x = torch.zeros(1, 3, 640)
    x[0, 1, 320:352] = torch.sin(torch.arange(32) * torch.pi / 2)  # a quarter of the rate, in frame 10
    made = log_spectra(x, 32)
    assert made.shape == (1, 20, 99)
    assert made[0, :, 33:66].max(1).values.argmax() == 10
    assert made[0, 10, 33:66].argmax() == 16
    quiet = made[0, [0, 5, 8, 12, 19]]
    assert torch.allclose(quiet, quiet[0, 0].expand_as(quiet))


def test_sta_lta_rises_at_an_onset_and_is_one_in_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4000))
    x[1, 2000:] *= 10
    ratio = sta_lta(x, 50, 500)
    assert abs(ratio[0, 500:].mean() - 1) < 0.15
    assert ratio[0].max() < 3 < ratio[1].max()
    assert 2000 <= int((ratio[1] > 3).argmax()) < 2020
    early = rng.normal(size=(1, 4000))
    early[0, 200:] *= 10  # before the long average is full
    assert sta_lta(early, 50, 500).max() > 3


def test_names_read_are_those_that_a_task_gives(data: Seisbench) -> None:
    given: dict[str, Tensor | object] = {**batches(data, "valid")[0], **oracle(batches(data, "valid")[0])}
    for metric in (PhaseProbe, PhaseAgreement, EventAuc):
        assert reads(metric.update)[0] <= given.keys()
        if metric.learns:
            assert reads(metric.learn) == reads(metric.update)
