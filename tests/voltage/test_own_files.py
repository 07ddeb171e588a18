"""A core of one's own: files, names, units and splits of training data, and where every hint leads when followed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vqtool.errors import VqtoolError
from vqtool.recipe.overrides import parse
from vqtool_voltage.data.magnet import Magnet
from vqtool_voltage.norms.impedance import ImpedanceNorm

from .conftest import MADE, winding

pd = pytest.importorskip("pandas")
Write = Callable[..., Path]


def columns(length: int = 32, **change: np.ndarray | None) -> dict[str, np.ndarray]:
    """Those of `winding` that a user has: no masks, no roll."""
    made = winding(length=length)
    kept = {key: made[key] for key in ("v", "i_p", "freq_hz", "temp_c", "material")} | change
    return {key: value for key, value in kept.items() if value is not None}


def everything(data: Magnet) -> dict[str, torch.Tensor]:
    """All rows in the phases of the file, which only the stored track has, ordered by frequency."""
    parts = [data.rows(split).__getitems__(list(range(len(data.rows(split))))) for split in data.splits]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    order = whole["frequency"].argsort()
    return {name: value[order] for name, value in whole.items()}


def opened(path: Path, **options: Any) -> Magnet:
    return Magnet(path=path, track="stored", **options)


def same(one: Magnet, other: Magnet) -> None:
    """Both hold the same waveforms."""
    expected, found = everything(other), everything(one)
    assert set(found) == set(expected)
    for name in expected:
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-4, atol=1e-4 * float(expected[name].abs().max())
        )


def follow(hint: str, path: Path, nth: int = 0, **options: Any) -> Magnet:
    """The data opened with the `-s data...` that a hint gives (the `nth` of them)."""
    words = shlex.split(hint.replace(";", " ; ").replace("`", " ").replace(", or", " , or"))
    text = [words[at + 1] for at, word in enumerate(words) if word == "-s"][nth]
    (_, *key), value = parse(text)
    return opened(path, **options, **{key[0]: {key[1]: value} if len(key) > 1 else value})


@pytest.fixture
def reference(tmp_path: Path) -> Magnet:
    np.savez(tmp_path / "plain.npz", **columns())
    return opened(tmp_path / "plain.npz")


@pytest.fixture
def save(tmp_path: Path) -> Write:
    def write(**arrays: np.ndarray | None) -> Path:
        np.savez(tmp_path / "mine.npz", **{key: value for key, value in arrays.items() if value is not None})
        return tmp_path / "mine.npz"

    return write


def wide(separator: str, decimal: str, path: Path) -> Path:
    made = columns()
    table = {f"voltage_{k}": made["v"][:, k] for k in range(32)} | {
        f"current[{k}]": made["i_p"][:, k] for k in range(32)
    }
    table |= {"Frequency [kHz]": made["freq_hz"] / 1e3, "Temperature (°C)": made["temp_c"], "Core": made["material"]}
    pd.DataFrame(table).to_csv(path, sep=separator, decimal=decimal, index=False)
    return path


def long(path: Path, *, numbered: bool, timed: bool) -> Path:
    made = columns()
    n = len(made["v"])
    step = 1 / (made["freq_hz"][:, None] * 32)
    table = {
        "u": made["v"].ravel(), "i": made["i_p"].ravel(), "freq": made["freq_hz"].repeat(32),
        "temp": made["temp_c"].repeat(32), "material": made["material"].repeat(32),
    }  # fmt: skip
    if numbered:
        table["measurement"] = np.arange(n).repeat(32)
    if timed:
        table["time_us"] = (1e6 * step * np.arange(32)).ravel()
    pd.DataFrame(table).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", ","), ("\t", ".")])
def test_a_waveform_a_line_in_any_dialect(reference, tmp_path, separator, decimal):
    data = opened(wide(separator, decimal, tmp_path / "mine.csv"))
    same(data, reference)
    assert any("`freq_hz` from `Frequency [kHz]` in kHz" in note for note in data.notes)


@pytest.mark.parametrize(("numbered", "timed"), [(True, False), (False, True), (True, True)])
def test_a_sample_a_line_is_cut_by_a_number_or_by_the_time(reference, tmp_path, numbered, timed):
    data = opened(long(tmp_path / "mine.csv", numbered=numbered, timed=timed))
    same(data, reference)
    assert any("1280 lines are 40 waveforms of 32 samples" in note for note in data.notes)


@pytest.mark.parametrize(
    ("before", "names", "scale", "skipped"),
    [
        ("Model,M1,\nVertical Offset,0.0,\nVertical Scale,1.0,\nInterval,1e-6,\nRecord Length,5000,\n\n", "", 1, 5),
        ("# written by hand\n# ", "", 1, 1),
        ("%", "", 1, 0),
        ("", "x-axis,1,2\nsecond,Volt,Ampere\n", [1e-6, 1, 1], 1),
        ("Labels,,\n", "t,u,i\n(us),(mV),(A)\n", [1, 1e3, 1], 1),
    ],
)
def test_lines_before_a_table_are_skipped_and_units_below_its_names_read(tmp_path, before, names, scale, skipped):
    """As oscilloscopes, simulators and `numpy.savetxt` write them."""
    table = pd.read_csv(long(tmp_path / "mine.csv", numbered=False, timed=True))[["time_us", "u", "i"]]
    plain, path = tmp_path / "plain.csv", tmp_path / "scope.csv"
    table.to_csv(plain, index=False)
    path.write_text(before + names + (table * scale).to_csv(index=False, header=not names))
    data = opened(path)
    same(data, opened(plain))
    said = [note for note in data.notes if "before the table skipped" in note]
    assert [f" {skipped} lines" in note for note in said] == [True] * (skipped > 0)


@pytest.mark.parametrize("line", [1, 40, 700])
def test_a_line_of_words_among_the_data_is_named_and_nothing_before_it_skipped(tmp_path, line):
    path = long(tmp_path / "mine.csv", numbered=False, timed=True)
    lines = path.read_text().splitlines()
    lines.insert(line + 1, "off,off,off,off,soft,off")
    path.write_text("\n".join(lines))
    with pytest.raises(VqtoolError, match=rf"`off` in row {line + 1} of `\w+` is not a number"):
        opened(path)


def test_a_sample_a_line_without_either_is_asked_about_and_the_hint_serves(reference, tmp_path):
    path = long(tmp_path / "mine.csv", numbered=False, timed=False)
    with pytest.raises(VqtoolError, match="ends and the next begins cannot be seen") as caught:
        opened(path)
    table = pd.read_csv(path)
    table["no"] = np.arange(40).repeat(32)
    table.to_csv(path, index=False)
    same(follow(caught.value.hint.replace("COLUMN", "no"), path), reference)


def test_records_of_different_rates_come_to_one_length(reference, tmp_path):
    made = columns()
    pieces = []
    for row in range(40):
        size = 32 if row % 3 else 64
        at = np.arange(size) * 32 // size if size == 32 else None
        wave = {key: made[key][row] if at is not None else _finer(made[key][row], size) for key in ("v", "i_p")}
        pieces.append(pd.DataFrame({"id": row, "v": wave["v"], "i": wave["i_p"], "f": made["freq_hz"][row],
                                    "temp": made["temp_c"][row], "material": made["material"][row]}))  # fmt: skip
    pd.concat(pieces).to_csv(tmp_path / "mine.csv", index=False)
    same(opened(tmp_path / "mine.csv", length=32), reference)


def _finer(x: np.ndarray, size: int) -> np.ndarray:
    return np.fft.irfft(np.fft.rfft(x), n=size) * (size / len(x))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_mat_files_also_of_structures_and_of_waveforms_in_columns(reference, tmp_path, turned, nested):
    io = pytest.importorskip("scipy.io")
    made = columns()
    held = {
        "Voltage": made["v"].T if turned else made["v"],
        "Current": made["i_p"].T if turned else made["i_p"],
        "Frequency": made["freq_hz"][:, None],
        "Temperature": made["temp_c"],
        "Material": made["material"].astype(object),
    }
    io.savemat(tmp_path / "mine.mat", {"Data": held} if nested else held)
    data = opened(tmp_path / "mine.mat")
    same(data, reference)
    assert any("turned into rows" in note for note in data.notes) == turned


@pytest.mark.parametrize("length", [24, 50, 33])
def test_any_number_of_samples_a_period_is_resampled_and_reported(reference, save, length):
    data = opened(save(**columns(length)), length=32)
    same(data, reference)
    assert any(f"{length} samples a period were resampled to 32" in note for note in data.notes)
    assert opened(save(**columns(length))).spec.length == length


def test_frequency_follows_from_dt_and_several_periods_are_averaged(reference, save):
    made = columns()
    dt = 1 / (made["freq_hz"] * 32)
    same(opened(save(**{**made, "freq_hz": None}, dt=dt)), reference)
    double = {key: np.tile(made[key], 2) for key in ("v", "i_p")}
    same(opened(save(**{**made, **double}, dt=dt)), reference)
    with pytest.raises(VqtoolError, match="seems to hold 2 periods") as caught:
        opened(save(**{**made, **double}))
    assert "`periods`" in caught.value.hint
    same(opened(save(**{**made, **double}, periods=np.array(2))), reference)


def test_without_temperature_and_material_the_model_reads_neither(save):
    data = opened(save(**columns(temp_c=None, material=None)))
    assert data.spec.fields["meta"].names == ("log_frequency", "log_current_amplitude")
    assert data.spec.fields["material"].names == ("core",)
    assert sum("no temperature" in note or "no material" in note for note in data.notes) == 2
    norm = ImpedanceNorm(data.spec)
    norm.fit(data.rows("train"))
    assert all(bool(torch.isfinite(value).all()) for value in norm.state_dict().values())  # else it is not read again


MISREAD = [
    ({"freq_hz": 1e-3}, "below 1000 Hz", 0),
    ({"freq_hz": 1e-6}, "below 1000 Hz", 0),
    ({"temp_c": 273.15}, "above 250 C", 0),
    ({"i_p": 1e3}, "are they in mA", 0),
    ({"v": -1.0}, "opposite polarity", 0),
]


@pytest.mark.parametrize(("change", "message", "nth"), MISREAD, ids=["kHz", "MHz", "K", "mA", "polarity"])
def test_each_unit_that_is_asked_about_has_a_hint_that_answers_it(save, change, message, nth):
    made = columns(i_p=columns()["i_p"] * 0.1, v=columns()["v"] * 0.1)
    expected = opened(save(**made))
    before = everything(expected)
    ((key, factor),) = change.items()
    made[key] = made[key] + factor if key == "temp_c" else made[key] * factor
    path = save(**made)
    with pytest.raises(VqtoolError, match=message) as caught:
        opened(path)
    found = everything(follow(caught.value.hint, path, nth))
    for name in before:
        torch.testing.assert_close(found[name], before[name], rtol=1e-4, atol=1e-4)


def test_a_unit_that_is_right_can_be_confirmed(save):
    made = columns(i_p=columns()["i_p"] * 1e3)
    path = save(**made)
    with pytest.raises(VqtoolError, match="mA") as caught:
        opened(path)
    assert follow(caught.value.hint, path, 1).spec.metadata["current_amplitude_a"][1] > 100


@pytest.mark.parametrize("name", ["current_ma", "Current [mA]", "I (mA)"])
def test_a_unit_in_the_name_is_the_answer(reference, save, name):
    made = columns()
    data = opened(save(**{**made, "i_p": None, name: made["i_p"] * 1e3}))
    same(data, reference)
    assert any(f"`i_p` from `{name}` in mA" in note for note in data.notes)


def test_an_unusual_name_is_asked_for_and_the_hint_serves(reference, save):
    made = columns()
    path = save(**{**made, "v": None, "Spannung am Kern": made["v"]})
    with pytest.raises(VqtoolError, match=r"has no `v` \(the voltage\)") as caught:
        opened(path)
    same(follow(caught.value.hint, path), reference)
    path = save(**{**made, "i_p": None, "i": made["i_p"], "current": made["i_p"]})
    with pytest.raises(VqtoolError, match="could each be the current") as caught:
        opened(path)
    same(follow(caught.value.hint, path), reference)


def test_names_as_objects_are_refused_with_the_cast_that_serves(reference, save):
    made = columns()
    with pytest.raises(VqtoolError, match=r"`material` in `mine\.npz` holds Python objects") as caught:
        opened(save(**{**made, "material": made["material"].astype(object)}))
    assert ".astype(str)" in caught.value.hint
    same(opened(save(**{**made, "material": made["material"].astype(object).astype(str)})), reference)


@pytest.mark.parametrize(
    ("split", "key", "low"), [("random", None, 0), ("frequency", "frequency", 0), ("temperature", "temp_c", 90)]
)
def test_splits_are_made_where_the_file_has_none(save, split, key, low):
    data = opened(save(**columns()), split=split)
    held = data.rows(data.splits[2])
    rest = [data.rows(name).columns for name in ("train", "valid")]
    if split == "temperature":
        assert held.columns["meta"][:, 1].min() >= low > max(float(part["meta"][:, 1].max()) for part in rest)
    else:
        assert len(held) == 8
    if key == "frequency":
        assert held.columns["frequency"].min() > max(float(part["frequency"].max()) for part in rest)
    assert any(f"has no `{data.splits[2]}`: {len(held)} of 40 waveforms" in note for note in data.notes)
    same(data, opened(save(**columns())))


def test_a_mask_of_the_file_is_used_also_as_numbers(save):
    mask = np.zeros(40, dtype=int)
    mask[[3, 7, 11]] = 1
    data = opened(save(**columns(), test_random=mask))
    assert len(data.rows("test_random")) == 3
    assert not any("held out" in note for note in data.notes)


def test_a_split_that_the_file_cannot_have_is_refused_and_the_hint_serves(reference, save):
    path = save(**columns(freq_hz=np.linspace(2e4, 9e4, 40)))
    with pytest.raises(VqtoolError, match="0 of 40 waveforms above 250 kHz") as caught:
        opened(path, split="freq_gt_250k")
    assert len(follow(caught.value.hint, path).rows("test_random")) == 8
    with pytest.raises(VqtoolError, match="no `test_shape`") as caught:
        opened(path, split="shape")
    assert len(follow(caught.value.hint, path).rows("test_random")) == 8


def test_a_new_current_in_milliampere_is_asked_about_and_the_hint_serves(save):
    data = opened(save(**columns()))
    mine = save(**{key: value for key, value in columns(i_p=columns()["i_p"] * 1e3).items() if key != "v"})
    with pytest.raises(VqtoolError, match="is it in mA") as caught:
        next(data.files(data.spec, {}).open(mine, condition=True))
    assert "-s data.current_unit=mA" in caught.value.hint
    (piece,) = data.files(data.spec, {}, {"current_unit": "mA"}).open(mine, condition=True)
    np.testing.assert_allclose(piece.batch["current"][:, 0].numpy(), columns()["i_p"], atol=1e-4)
    next(data.files(data.spec, {}, {"current_unit": "A"}).open(mine, condition=True))
    with pytest.raises(VqtoolError, match="are options of these files"):
        data.files(data.spec, {}, {"flip": 1.0})


def test_the_polarity_of_the_file_is_that_of_what_is_written(save, tmp_path):
    made = columns(v=-columns()["v"])
    data = opened(save(**made), polarity="passive")
    files = data.files(data.spec, {"polarity": "passive"})
    pieces = list(files.open(save(**made)))
    assert data.spec.metadata["inductance_h"] == pytest.approx([MADE["soft"], MADE["stiff"]], rel=1e-3)
    files.save(tmp_path / "out.npz", iter(pieces))
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["v"], made["v"], rtol=1e-3, atol=1e-3 * float(np.abs(made["v"]).max()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0,2.0,3\n1,2,3\n", "begins with numbers"),
        ("v,i_p,freq_hz\n", "has no rows"),
        ("v,v\n1,2\n", "two columns of"),
        ("v,i_p,freq_hz\n" + "1,2,1e5\n2,1,1e5\n" * 20, "has 1 waveform;"),
        ("", "cannot be read as a table"),
    ],
)
def test_bad_tables_are_one_clear_error(tmp_path, text, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(VqtoolError, match=message):
        opened(tmp_path / "mine.csv")
