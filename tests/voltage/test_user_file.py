"""A user's own currents and voltages: any length and rate, read as one period, written back on the same samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtool.api import Piece
from vqtool.errors import VqtoolError
from vqtool_voltage import periods
from vqtool_voltage.data.magnet import Magnet

Save = Callable[..., Path]
NAMES = ["3C92", "3C95", "79", "ML95S"]


def currents(samples: int = 128, count: int = 1, n: int = 4) -> np.ndarray:
    """[n, samples] of `count` periods: harmonics 1 to 5 and a small mean, in ampere."""
    rng = np.random.default_rng(3)
    t = 2 * np.pi * count * np.arange(samples) / samples
    order = np.arange(1, 6)
    size = rng.normal(size=(n, 5)) / order**2 + 0.3 / order**2
    return 0.1 * (size @ np.cos(order[:, None] * t) + 0.05)


def opened(data: Magnet, path: Path, *, condition: bool) -> Piece:
    """A file as its one piece."""
    (piece,) = data.files(data.spec).open(path, condition=condition)
    return piece


def save_signal(data: Magnet, path: Path, signal: torch.Tensor, piece: Piece) -> None:
    """Write voltages for a piece's conditions."""
    files = data.files(data.spec)
    assert files.save(path, iter([Piece({"x": signal, **piece.batch}, piece.metadata)])) == [path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(**change: object) -> Path:
        columns = {"i_p": currents(), "freq_hz": 1e5, "temp_c": 25.0, "material": "3C95"} | change
        np.savez(tmp_path / "mine.npz", **{k: v for k, v in columns.items() if v is not None})
        return tmp_path / "mine.npz"

    return write


def test_the_bundled_layout_reads_back_as_the_batch_of_the_rows(sample: Magnet, save):
    rows = sample.rows("test_random").__getitems__([0, 10, 500, 2000])
    path = save(
        i_p=rows["current"][:, 0].numpy(),
        v=rows["x"][:, 0].numpy(),
        freq_hz=rows["frequency"].numpy(),
        temp_c=rows["meta"][:, 1].numpy(),
        material=np.array(NAMES)[rows["material"].numpy()],
    )
    piece = opened(sample, path, condition=False)
    assert set(piece.batch) == set(rows)
    for name in rows:
        torch.testing.assert_close(piece.batch[name], rows[name], rtol=1e-4, atol=1e-4)
    assert piece.notes == ["the 128 samples of a row are taken as one period: the file has no `dt`"]
    json.dumps(piece.metadata)


def test_a_condition_alone_needs_and_reads_no_voltage(sample: Magnet, save):
    piece = opened(sample, save(), condition=True)
    assert "x" not in piece.batch
    assert set(piece.batch) == {"current", "meta", "material", "dt", "frequency"}
    np.testing.assert_allclose(piece.batch["meta"][:, 2].exp().numpy(), np.ptp(currents(), axis=1) / 2, rtol=1e-5)
    with pytest.raises(VqtoolError, match="has no `v`"):
        opened(sample, save(), condition=False)


@pytest.mark.parametrize(
    ("samples", "count"), [(128, 1), (100, 1), (1000, 1), (640, 5), (1001, 7), (24, 1), (2560, 20)]
)
@pytest.mark.parametrize("key", ["dt", "sample_rate", "periods"])
def test_other_lengths_and_rates_read_as_the_same_period_and_come_back(sample, save, tmp_path, samples, count, key):
    rate = 1e5 * samples / count
    path = save(i_p=currents(samples, count), **{key: {"dt": 1 / rate, "sample_rate": rate, "periods": count}[key]})
    piece = opened(sample, path, condition=True)
    np.testing.assert_allclose(piece.batch["current"][:, 0].numpy(), currents(), atol=1e-6)
    assert any("resampled" in note for note in piece.notes) == (samples != 128 * count)
    assert any("averaged" in note for note in piece.notes) == (count > 1)
    save_signal(sample, tmp_path / "out.npz", 100 * piece.batch["current"], piece)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["v"], 100 * currents(samples, count), atol=1e-4)
        np.testing.assert_allclose(out["i_p"], currents(samples, count), atol=1e-6)
        np.testing.assert_allclose(out["freq_hz"], 1e5)
        np.testing.assert_allclose(out["temp_c"], 25)
        assert out["material"].tolist() == ["3C95"] * 4


def test_rows_may_hold_different_numbers_of_periods(sample: Magnet, save, tmp_path):
    record = np.concatenate([currents(600, 2, 2)[:1], currents(600, 3, 2)[1:]])
    piece = opened(sample, save(i_p=record, freq_hz=np.array([1e5, 1.5e5]), dt=2e-5 / 600), condition=True)
    np.testing.assert_allclose(piece.batch["current"][:, 0].numpy(), currents(n=2), atol=1e-6)
    save_signal(sample, tmp_path / "out.npz", piece.batch["current"], piece)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["v"], record, atol=1e-6)


def test_a_single_current_comes_back_as_one_voltage_and_samples_get_an_axis(sample: Magnet, save, tmp_path):
    piece = opened(sample, save(i_p=currents(100)[0]), condition=True)
    assert piece.batch["current"].shape == (1, 1, 128)
    save_signal(sample, tmp_path / "one.npz", piece.batch["current"], piece)
    save_signal(sample, tmp_path / "many.npz", piece.batch["current"][:, None].expand(1, 3, 1, 128), piece)
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "many.npz") as many:
        assert one["v"].shape == (100,)
        assert one["freq_hz"].shape == ()
        assert many["v"].shape == (3, 100)


def test_harmonics_that_training_never_had_are_removed_and_reported(sample: Magnet, save):
    t = 2 * np.pi * np.arange(128) / 128
    piece = opened(sample, save(i_p=currents() + 0.01 * np.cos(30 * t)), condition=True)
    np.testing.assert_allclose(piece.batch["current"][:, 0].numpy(), currents(), atol=1e-6)
    assert any("limited to 11 harmonics" in note for note in piece.notes)
    assert periods.highest_harmonic(piece.batch["current"][:, 0].numpy()) <= 11


@pytest.mark.parametrize("material", ["C", "3c95", np.array(["C", "3C95", "c", "3C95"]), np.array([b"C"] * 4)])
def test_materials_go_by_name_or_code(sample: Magnet, save, material):
    piece = opened(sample, save(material=material), condition=True)
    assert piece.batch["material"].tolist() == [1] * 4
    piece = opened(sample, save(material=None, material_code="C"), condition=True)
    assert piece.batch["material"].tolist() == [1] * 4


def test_reading_needs_the_spec_only(sample: Magnet, save):
    bare = Magnet.__new__(Magnet)
    bare.spec = type(sample.spec).from_json(json.loads(json.dumps(sample.spec.to_json())))
    torch.testing.assert_close(opened(bare, save(), condition=True).batch, opened(sample, save(), condition=True).batch)


def test_a_model_without_temperature_and_material_asks_for_neither(save, made):
    data = Magnet(path=made(), conditions=("freq_hz", "i_pk_a"))
    piece = opened(data, save(material=None, temp_c=None), condition=True)
    assert piece.batch["meta"].shape == (4, 2)
    assert "material" not in piece.batch


def test_what_lies_outside_the_trained_ranges_is_reported(sample: Magnet, save):
    path = save(freq_hz=np.array([1e5, 9e5, 1e6, 2e5]), temp_c=120.0, i_p=currents() * 50)
    notes = " ".join(opened(sample, path, condition=True).notes)
    assert "frequency: 2 of 4 rows lie outside the trained" in notes
    assert "index 1 (9e+05 Hz)" in notes
    assert "temperature: 4 of 4" in notes
    assert "amplitude of the current: 4 of 4" in notes


def test_a_bias_of_the_current_is_reported(sample: Magnet, save):
    biased = currents() - currents().mean(1, keepdims=True)
    amplitude = np.ptp(biased, axis=1) / 2
    biased += amplitude[:, None] * np.array([[0.1], [-0.5], [3.0], [0.0]])
    piece = opened(sample, save(i_p=biased), condition=True)
    (note,) = (note for note in piece.notes if "mean of the current" in note)
    assert "2 of 4 rows" in note
    assert "the largest at index 2 (300%)" in note
    np.testing.assert_allclose(piece.batch["current"][:, 0].numpy(), biased, atol=1e-6)


@pytest.mark.parametrize("name", ["mine.wav", "mine.npz"])
def test_a_file_of_another_kind_gets_the_list_of_what_is_read(sample: Magnet, tmp_path, name):
    np.savetxt(tmp_path / name, currents(), delimiter=",")
    with pytest.raises(VqtoolError, match=r"only \.npz, \.csv, \.tsv, \.txt and \.mat are read") as caught:
        opened(sample, tmp_path / name, condition=True)
    assert "numpy.savez(" in caught.value.hint
    assert "pickle" not in str(caught.value)


noise = 0.3 * np.random.default_rng(0).normal(size=(4, 640))
REFUSED = [
    ({"i_p": None}, "has no `i_p`"),
    ({"freq_hz": None}, "has no `freq_hz`"),
    ({"temp_c": None}, "has no `temp_c`"),
    ({"material": None}, "has no `material`"),
    ({"material": "N87"}, "unknown material `N87`"),
    ({"material": np.array(["3C95", "79"])}, "names 2 materials for 4"),
    ({"freq_hz": 100.0}, "below 1000 Hz"),
    ({"freq_hz": np.array([1e5, 1e5])}, "there are 4 waveforms"),
    ({"temp_c": 298.15}, "above 250 C"),
    ({"i_p": currents() * np.nan}, "NaN or inf"),
    ({"i_p": np.zeros((4, 128))}, "constant"),
    ({"i_p": np.zeros(0)}, "not \\[waveforms, samples\\]"),
    ({"i_p": currents(5)}, "at least 8"),
    ({"i_p": currents(512, 4)}, "seems to hold 4 periods"),
    ({"i_p": currents(192)[:, :180], "dt": 1e-5 / 192}, "hold 0.9375 periods"),
    ({"i_p": currents(300, 2)[:, :225], "dt": 1e-5 / 150}, "hold 1.5 periods"),
    ({"dt": 1e-5 / 128 * 1e6}, "at least 8"),
    ({"dt": -1.0}, "`dt` must be positive"),
    ({"dt": np.nan}, "`dt` is NaN"),
    ({"periods": 1.5}, "hold 1.5 periods"),
    ({"dt": 1e-5 / 128, "periods": 2}, "give different lengths"),
    ({"i_p": currents(640, 5) + noise, "periods": 5}, "periods of `i_p` in row"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_read_safely_is_refused(sample: Magnet, save, change, message):
    path = save(**change)
    with pytest.raises(VqtoolError, match=message) as caught:
        opened(sample, path, condition=True)
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_the_hint_knows_the_cut_and_the_materials(sample: Magnet, save):
    with pytest.raises(VqtoolError) as caught:
        opened(sample, save(i_p=currents(300, 2)[:, :225], dt=1e-5 / 150), condition=True)
    assert "150 samples" in caught.value.hint
    with pytest.raises(VqtoolError) as caught:
        opened(sample, save(material="3C9"), condition=True)
    assert "3C92" in caught.value.hint
    assert "ML95S (E)" in caught.value.hint


def test_a_failed_write_is_one_error_and_keeps_what_was_there(sample: Magnet, save, tmp_path, monkeypatch):
    piece = opened(sample, save(), condition=True)
    with pytest.raises(VqtoolError, match="cannot write"):
        save_signal(sample, tmp_path / "no" / "out.npz", piece.batch["current"], piece)
    out = tmp_path / "out.npz"
    save_signal(sample, out, piece.batch["current"], piece)
    before = out.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(VqtoolError, match="No space left") as caught:
        save_signal(sample, out, piece.batch["current"], piece)
    assert caught.value.exit_code == 1
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.npz", "out.npz"]
