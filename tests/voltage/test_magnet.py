"""The data set: its splits, phases and augmentation, what it refuses, and that the laws hold on the bundled file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vqtool.api import DataSpec
from vqtool.errors import VqtoolError
from vqtool_voltage.data.magnet import Magnet
from vqtool_voltage.physics import derivative, relative_residual

from .conftest import MADE, SAMPLE, winding


def everything(data: Magnet, split: str) -> dict[str, torch.Tensor]:
    rows = data.rows(split)
    return rows.__getitems__(list(range(len(rows))))


def changed(key: str, at: object, value: object) -> dict[str, np.ndarray]:
    column = winding()[key]
    column[at] = value
    return {key: column}


def test_the_bundled_file_has_the_documented_fields_and_splits(sample):
    assert sample.splits == ("train", "valid", "test_random")
    assert [len(sample.rows(split)) for split in sample.splits] == [7475, 830, 2076]
    assert sample.spec.periodic
    assert {name: f.role for name, f in sample.spec.fields.items()} == {
        "x": "signal",
        "current": "wave",
        "meta": "scalar",
        "material": "category",
        "dt": "extra",
        "frequency": "extra",
    }
    assert sample.spec.fields["material"].names == ("3C92", "3C95", "79", "ML95S")
    assert sample.spec.metadata["current_harmonics"] == 11
    assert DataSpec.from_json(sample.spec.to_json()) == sample.spec


@pytest.mark.parametrize("split", ["train", "valid", "test_random"])
def test_batches_match_the_spec(sample, split):
    batch = sample.rows(split).__getitems__([0, 3, 5])
    assert set(batch) == set(sample.spec.fields)
    for name, field in sample.spec.fields.items():
        assert batch[name].shape == (3, *field.shape)
        assert torch.equal(sample.rows(split)[3][name], batch[name][1])
    torch.testing.assert_close(batch["dt"] * batch["frequency"] * 128, torch.ones(3))


def test_the_amplitude_is_the_one_of_the_file():
    with np.load(SAMPLE) as file:
        known = file["i_pk_a"][file["test_random"]]
    data = Magnet(path=SAMPLE)
    np.testing.assert_allclose(everything(data, "test_random")["meta"][:, 2].exp().numpy(), known, rtol=1e-5)


def test_held_out_rows_are_rolled_by_the_file_and_the_stored_track_is_not():
    with np.load(SAMPLE) as file:
        mask, roll, v, i = file["test_shape"], file["phase_roll"], file["v"], file["i_p"]
    at = np.flatnonzero(mask)
    rolled, stored = (
        everything(Magnet(path=SAMPLE, split="shape", track=t), "test_shape") for t in ("random-phase", "stored")
    )
    for row in (0, 7, 1000):
        np.testing.assert_array_equal(rolled["x"][row, 0].numpy(), np.roll(v[at[row]], roll[at[row]]))
        np.testing.assert_array_equal(rolled["current"][row, 0].numpy(), np.roll(i[at[row]], roll[at[row]]))
        np.testing.assert_array_equal(stored["x"][row, 0].numpy(), v[at[row]])


def test_the_splits_are_disjoint_complete_and_seeded(made):
    path = made()
    one, same, other = Magnet(path=path), Magnet(path=path), Magnet(path=path, valid_seed=1)
    seen = torch.cat([everything(one, split)["frequency"] for split in one.splits])
    assert sorted(seen.tolist()) == sorted(winding()["freq_hz"].astype(np.float32).tolist())
    held = everything(one, "test_random")["frequency"].numpy()
    np.testing.assert_array_equal(held, winding()["freq_hz"][winding()["test_random"]].astype(np.float32))
    assert torch.equal(everything(one, "valid")["x"], everything(same, "valid")["x"])
    assert not torch.equal(everything(one, "valid")["frequency"], everything(other, "valid")["frequency"])


@pytest.mark.parametrize("split", ["train", "valid", "test_random"])
def test_rolling_keeps_voltage_and_current_together(made, split):
    batch = everything(Magnet(path=made()), split)
    m = torch.tensor(list(MADE.values()))[batch["material"]]
    slope = derivative(batch["current"], batch["dt"], "spectral")
    assert relative_residual(batch["x"], slope, m).max() < 1e-4


@pytest.mark.parametrize(("flip", "track"), [(0.0, "random-phase"), (0.5, "random-phase"), (0.5, "stored")])
def test_augmenting_keeps_the_law_and_the_rows_and_depends_on_the_generator_only(made, flip, track):
    data = Magnet(path=made(), flip=flip, track=track)
    batch = everything(data, "train")
    before = {name: value.clone() for name, value in batch.items()}
    one, same, other = (data.augment(batch, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(batch[name], before[name]) for name in batch)
    assert torch.equal(everything(data, "train")["x"], before["x"])
    assert torch.equal(one["x"], same["x"])
    assert not torch.equal(one["x"], other["x"])
    m = torch.tensor(list(MADE.values()))[one["material"]]
    assert relative_residual(one["x"], derivative(one["current"], one["dt"], "spectral"), m).max() < 1e-4
    size = torch.fft.rfft(before["x"]).abs()
    torch.testing.assert_close(torch.fft.rfft(one["x"]).abs(), size, rtol=1e-3, atol=1e-4 * float(size.max()))


def test_the_stored_track_without_flips_leaves_batches_alone(made):
    data = Magnet(path=made(), track="stored")
    batch = everything(data, "train")
    assert torch.equal(data.augment(batch, torch.Generator())["x"], batch["x"])


def test_inductances_are_those_of_the_training_rows(made):
    assert Magnet(path=made()).spec.metadata["inductance_h"] == pytest.approx(list(MADE.values()), rel=1e-4)


@pytest.mark.parametrize("name", ["b_pk_t", "v_rms", "loss_w_m3"])
def test_what_is_computed_from_the_voltage_is_no_condition(made, name):
    with pytest.raises(VqtoolError, match=f"`{name}` cannot be a condition") as caught:
        Magnet(path=made(), conditions=("freq_hz", name))
    assert "i_pk_a" in caught.value.hint


def test_an_unknown_condition_is_refused_with_a_guess(made):
    with pytest.raises(VqtoolError, match="not a condition") as caught:
        Magnet(path=made(), conditions=("freq",))
    assert "freq_hz" in caught.value.hint


def test_fewer_conditions_make_a_narrower_spec(made):
    data = Magnet(path=made(), conditions=("freq_hz",))
    assert data.spec.fields["meta"].names == ("log_frequency",)
    assert data.spec.fields["material"].role == "extra"
    assert everything(data, "train")["meta"].shape[1:] == (1,)
    assert "meta" not in Magnet(path=made(), conditions=("material",)).spec.fields


def test_a_position_column_becomes_a_field_and_enters_the_inductance(made):
    factor = np.random.default_rng(0).uniform(0.5, 2, 40)
    data = Magnet(path=made(x_position=factor, v=winding()["v"] * factor[:, None]))
    assert data.spec.metadata["inductance_h"] == pytest.approx(list(MADE.values()), rel=1e-4)
    assert data.rows("train")[0]["x_position"].shape == ()


def test_both_names_of_a_split_serve_and_the_results_come_under_the_masks_name(made):
    assert Magnet(path=made(), split="temp_90c").splits[2] == Magnet(path=made(), split="test_temp_90c").splits[2]
    with pytest.raises(VqtoolError, match="there is no split `test_random`"):
        Magnet(path=made(), split="temp_90c").rows("test_random")


BAD = [
    ({"i_p": None}, "has no `i_p`"),
    ({"v": winding()["v"][:, :20]}, "sampled alike"),
    ({"v": winding()["v"][0, 0]}, "not \\[waveforms, samples\\]"),
    ({"v": np.zeros((40, 0))}, "not \\[waveforms, samples\\]"),
    ({"v": np.zeros((0, 32))}, "not \\[waveforms, samples\\]"),
    ({"v": winding()["v"][:, :4]}, "at least 8"),
    ({"v": winding()["v"].astype(complex)}, "complex"),
    ({"v": winding()["v"].astype(object)}, "`v` in `made.npz` holds Python objects"),
    (changed("v", (3, 4), np.nan), "`v` holds NaN or inf in 1 of 40 waveforms, the first at index 3"),
    (changed("i_p", (slice(2, 4), 0), np.inf), "`i_p` holds NaN or inf in 2 of 40"),
    (changed("v", 5, 0.0), "`v` is constant in 1 of 40"),
    (changed("i_p", 5, 0.25), "`i_p` is constant in 1 of 40"),
    ({"freq_hz": winding()["freq_hz"] / 1000}, "`freq_hz` is below 1000 Hz in 40 of 40"),
    (changed("freq_hz", 7, 0.0), "not positive in 1 of 40 waveforms, the first at index 7"),
    ({"freq_hz": winding()["freq_hz"][:7]}, "there are 40 waveforms"),
    ({"temp_c": winding()["temp_c"] + 273.15}, "`temp_c` is above 250 C"),
    (changed("temp_c", 0, np.nan), "`temp_c` is NaN"),
    ({"material": np.array(["soft", "stiff"])}, "there are 40 waveforms"),
    ({"test_random": np.zeros(40, dtype=bool)}, "holds out 0 of 40"),
    ({"test_random": np.ones(40, dtype=bool)}, "holds out 40 of 40"),
    ({"test_random": np.arange(40)}, "must be 40 booleans"),
    ({"v": -winding()["v"]}, "opposite polarity"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_one_clear_error_that_names_the_file(made, change, message):
    path = made(**change)
    with pytest.raises(VqtoolError, match=message) as caught:
        Magnet(path=path)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 2


def test_kilohertz_and_kelvin_are_recognised(made):
    with pytest.raises(VqtoolError) as caught:
        Magnet(path=made(freq_hz=winding()["freq_hz"] / 1000))
    assert "kHz" in caught.value.hint
    with pytest.raises(VqtoolError) as caught:
        Magnet(path=made(temp_c=winding()["temp_c"] + 273.15))
    assert "kelvin" in caught.value.hint


def test_a_file_that_is_missing_cut_short_or_foreign(tmp_path: Path, made):
    with pytest.raises(VqtoolError, match=r"there is no file `nowhere\.npz`"):
        Magnet(path=tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(VqtoolError, match="cannot be read as npz"):
        Magnet(path=tmp_path / "text.npz")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(VqtoolError, match="one bare array"):
        Magnet(path=tmp_path / "bare.npy")
    whole = made().read_bytes()
    for share in (0.2, 0.9):
        (tmp_path / "cut.npz").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(VqtoolError, match="cannot be read as npz"):
            Magnet(path=tmp_path / "cut.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(VqtoolError, match="cannot be read as npz"):
        Magnet(path=tmp_path / "empty.npz")
