"""Windows: random crops, standardisation, dead components, labels from picks, each frame labelled once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.seismic.conftest import lines_of, motion, write_chunk
from vqtool_seismic.data.seisbench import Seisbench
from vqtool_seismic.phases import bounds, frame_labels, window_label
from vqtool_seismic.traces import Trace
from vqtool_seismic.windows import standardised

TRACE = Trace("k", "n", "XX.A", samples=3000, rate=100.0, p=1000.0, s=1300.0)


def everything(data: Seisbench, split: str) -> dict[str, torch.Tensor]:
    rows = data.rows(split)
    return rows.__getitems__(list(range(len(rows))))


def test_phases_of_a_trace() -> None:
    bound = bounds(motion(0), TRACE, 100.0)
    assert bound[:4].tolist() == [900, 1000, 1300, 1600]  # S lasts as long as P did, here 3 s
    assert 1900 < bound[4] < 2100  # 60 exp(-t / 200) is down to twice the noise 680 samples after S
    assert (
        bounds(motion(0), Trace("k", "n", "s", 3000, 100.0, p=1000, s=1050), 100.0)[3] == 1250
    )  # two seconds at least
    labels = frame_labels(bound, 0, 93, 32)
    middle = 32 * np.arange(93) + 16
    assert (labels[middle < 900] == 0).all()
    assert (labels[(middle >= 900) & (middle < 1000)] == -1).all()  # what a late pick would call noise
    assert (labels[(middle >= 1000) & (middle < 1300)] == 1).all()
    assert (labels[(middle >= 1300) & (middle < 1600)] == 2).all()
    assert (labels[(middle >= 1600) & (middle < bound[4])] == 3).all()
    assert (labels[middle >= bound[4]] == -1).all()
    np.testing.assert_array_equal(frame_labels(bound, 320, 80, 32), labels[10:90])


def test_without_both_picks_nothing_is_labelled_but_known_noise() -> None:
    assert np.isnan(bounds(motion(0), Trace("k", "n", "s", 3000, 100.0, p=1000), 100.0)).all()
    assert (frame_labels(bounds(motion(0), Trace("k", "n", "s", 3000, 100.0), 100.0), 0, 9, 32) == -1).all()
    noise = Trace("k", "n", "s", 800, 100.0, noise=True)
    assert (frame_labels(bounds(motion(0)[:, :800], noise, 100.0), 0, 25, 32) == 0).all()


@pytest.mark.parametrize(
    ("begin", "end", "label"),
    [(0, 800, 0), (0, 950, -1), (500, 1500, 1), (1000, 1100, 1), (950, 1050, -1), (1200, 1700, -1)],
)
def test_windows_with_and_without_an_event(begin: int, end: int, label: int) -> None:
    assert window_label(TRACE, begin, end, 100.0) == label


def test_standardised_by_what_surrounds_a_window() -> None:
    x = motion(1)
    own, scale = standardised(x, 500, 512, 512)
    np.testing.assert_allclose(own.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(own.std(1), 1, rtol=1e-4)
    np.testing.assert_allclose(scale, x[:, 500:1012].std(1), rtol=1e-4)
    whole, scale = standardised(x, 500, 512, 3000)
    np.testing.assert_allclose(
        whole, ((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True))[:, 500:1012], atol=1e-3
    )
    again, _ = standardised(x[:, 400:2000], 100, 512, 700)  # the same samples, cut out of more or less
    there, _ = standardised(x, 500, 512, 700)
    np.testing.assert_array_equal(again, there)


def test_dead_components_are_zero_whatever_their_offset() -> None:
    x = motion(2)
    x[1] = 1e6 + 0.1
    x[2] = 0
    window, scale = standardised(x, 0, 512, 3000)
    assert not window[1:].any()
    assert scale[1:].tolist() == [0, 0]
    x[1, 600:] += 7  # alive, but not in this window
    assert not standardised(x, 0, 512, 3000)[0][1].any()


def test_every_labelled_frame_is_in_one_window(folder: Path) -> None:
    data = Seisbench(path=folder, window=512, seed=3)
    for split in ("train", "test"):
        batch = everything(data, split)
        rows = data.rows(split)
        events = [t for t in rows.traces if not t.noise]
        wanted = sum((frame_labels(bounds(rows.held[t], t, 100.0), 0, 94, 32) >= 0).sum() for t in events)
        found = int((batch["phase"] >= 0).sum())
        assert abs(found - wanted) <= 3 * len(events)  # windows begin anywhere: borders move by a frame
        assert len(events) / 2 < int((batch["event"] == 1).sum()) <= len(events)  # but for a P at the end of a window
        silent = sum(t.noise for t in rows.traces)  # 800 samples each, in two windows or one and parts of two more
        assert silent <= int((batch["event"] == 0).sum()) <= 2 * silent


def test_labels_lie_where_the_onset_is(folder: Path) -> None:
    batch = everything(Seisbench(path=folder, window=512), "dev+test")
    for phase, p in zip(batch["phase"].numpy(), batch["p"].tolist(), strict=True):
        first = np.flatnonzero(phase == 1)
        if len(first) and 0 < p < 400:
            assert 0 <= 32 * first[0] + 16 - p < 32


def test_held_out_windows_never_change_and_reveal_no_onset(folder: Path) -> None:
    one, two = (everything(Seisbench(path=folder, window=512), "dev+test") for _ in range(2))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], equal_nan=True)
    inside = one["p"][(one["p"] > 0) & (one["p"] < 512)]
    assert inside.std() > 60


def test_training_windows_are_random_crops(folder: Path) -> None:
    data = Seisbench(path=folder, window=512)
    rows = data.rows("train")
    batch = rows.__getitems__(list(range(16)))
    one, same, other = (data.augment(batch, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(one, same, equal_nan=True)
    assert not torch.equal(one["x"], other["x"])
    assert set(one) == set(batch) == set(data.spec.fields)
    begins = []
    for seed in range(60):
        crop = data.augment(batch, torch.Generator().manual_seed(seed))
        begins.append(1000 - crop["p"][0].item())
    assert min(begins) >= 0
    assert max(begins) <= 3000 - 512
    assert max(begins) - min(begins) > 2000
    assert len(set(begins)) > 50


def test_fields_are_as_the_spec_says(folder: Path) -> None:
    data = Seisbench(path=folder, window=512)
    batch = everything(data, "valid")
    for name, field in data.spec.fields.items():
        assert tuple(batch[name].shape[1:]) == field.shape, name
    assert data.spec.to_json() == type(data.spec).from_json(data.spec.to_json()).to_json()


def test_vertical_only_traces_train_but_are_labelled_only_when_asked(tmp_path: Path) -> None:
    waves = np.stack([motion(i) for i in range(10)])
    waves[:, 1:] = 0
    write_chunk(tmp_path, {"bucket0": waves}, lines_of(10, 1))
    silent = everything(Seisbench(path=tmp_path, window=512), "train")
    assert (silent["phase"] == -1).all()
    assert (silent["event"] == -1).all()
    assert silent["live"].tolist()[0] == [1, 0, 0]
    result = everything(Seisbench(path=tmp_path, window=512, labelled="any"), "train")
    assert set(result["phase"].unique().tolist()) == {-1, 0, 1, 2, 3}


def test_a_short_trace_continues_as_its_mirror_image(folder: Path) -> None:
    data = Seisbench(path=folder, window=1024)
    rows = data.rows("train")
    at = next(i for i, (number, _) in enumerate(rows.at) if rows.traces[number].noise)
    row = rows[at]
    torch.testing.assert_close(row["x"][:, 800:1024], row["x"][:, 575:799].flip(1))
    assert math.isnan(row["p"])


def test_with_shortest_a_short_trace_is_a_short_window(tmp_path: Path) -> None:
    write_chunk(tmp_path, {"bucket0": np.stack([motion(k) for k in range(10)])}, lines_of(5, 2))
    mirrored, data = Seisbench(path=tmp_path, window=1600), Seisbench(path=tmp_path, window=1600, shortest=400)
    rows, before = everything(data, "train"), everything(mirrored, "train")
    assert "mask" not in before
    short = rows["mask"].sum(1) == 800
    assert bool(short.any())
    assert bool(rows["mask"][~short].all())
    assert not rows["x"][short][..., 800:].any()
    assert (rows["phase"][short][:, 25:] == -1).all()
    own = rows["x"][short][..., :800]
    np.testing.assert_allclose(own.mean(2), 0, atol=1e-4)
    np.testing.assert_allclose(own.std(2, correction=0), 1, rtol=1e-3)
    assert torch.equal(rows["x"][~short], before["x"][~short])
    assert len(Seisbench(path=tmp_path, window=1600, shortest=900).rows("train")) == int((~short).sum())
