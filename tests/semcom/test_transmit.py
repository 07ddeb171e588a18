"""A trained link on one's own inputs: `vqtool transmit` and `classify`, its two ends in Python, and their export."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.run import document, within
from tests.images.conftest import columns
from tests.semcom.test_classify import RECIPE, built
from tests.semcom.test_mixture import mixture
from vqtool.errors import VqtoolError
from vqtool.model.load import load


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A link that knows four classes, and pictures of all of them as files."""
    folder = tmp_path_factory.mktemp("link")
    found = columns()
    np.savez(folder / "pictures.npz", **found)
    (folder / "link.toml").write_text(RECIPE.replace('baselines = ["pixels"]\n', ""))
    assert within("train", folder / "link.toml", "-o", folder / "run").returncode == 0
    (folder / "mine" / "sub").mkdir(parents=True)
    for at, image in enumerate(found["test_images"][:6]):
        Image.fromarray(image).save(folder / "mine" / ("sub" if at > 3 else "") / f"{at}.png")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_picture(home: Path, tmp_path: Path) -> None:
    out, bits, symbols = tmp_path / "r.csv", tmp_path / "b.txt", tmp_path / "s.npy"
    done = within("transmit", home / "run", home / "mine", "--snr", 20, "--out", out, "--bits", bits,
                  "--symbols", symbols)  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = rows(out)
    assert list(table[0]) == ["input", "label", "probability", "bits", "symbols", "bit_errors"]
    assert [row["input"] for row in table] == ["0.png", "1.png", "2.png", "3.png", "sub/4.png", "sub/5.png"]
    assert [row["label"] for row in table] == ["0", "1", "2", "3", "0", "1"]
    assert {(row["bits"], row["symbols"]) for row in table} == {("20", "5")}  # 4 tokens of 20 codes, 16-QAM
    lines = bits.read_text().splitlines()
    assert [len(line) for line in lines] == [20] * 6
    sent = np.load(symbols)
    assert (sent.shape, sent.dtype) == ((6, 5), np.complex64)
    from vqtool_semcom.qam import Qam

    mapped = Qam(16).symbols(torch.tensor([[float(bit) for bit in line] for line in lines]))
    np.testing.assert_allclose(sent, torch.view_as_complex(mapped.contiguous()).numpy())
    raw = tmp_path / "s.cf32"
    within("transmit", home / "run", home / "mine", "--symbols", raw)
    np.testing.assert_array_equal(np.fromfile(raw, "<c8"), sent.ravel())


def test_other_channels_by_name(home: Path, tmp_path: Path) -> None:
    """Less SNR and fading cost bits; the same seed gives the same noise, and another other noise."""

    def errors(*words: object) -> int:
        answers = document("transmit", home / "run", home / "pictures.npz", *words)["answers"]
        assert len(answers) == 200
        return sum(int(row["bit_errors"]) for row in answers)

    good, again, bad = errors("--snr", 12), errors("--snr", 12), errors("--snr", 0)
    assert good == again != errors("--snr", 12, "--seed", 1)
    assert good < errors("--snr", 12, "--channel", "rayleigh") < bad
    assert good < errors("--snr", 12, "--channel", "ofdm", "-s", "channel.taps=2")
    assert 0.07 < errors("--channel", "bsc", "-s", "channel.flip=0.1") / 4000 < 0.13
    assert errors("--channel", "bsc", "-s", "channel.flip=0.0") == 0
    soft = document("transmit", home / "run", home / "mine", "--soft")["answers"]
    assert {tuple(row) for row in soft} == {("input", "label", "probability", "symbols")}  # no bits are sent
    out = tmp_path / "s.npz"
    within("transmit", home / "run", home / "mine", "--snr", 30, "--channel", "rayleigh", "--symbols", out)
    seen = np.load(out)
    np.testing.assert_allclose(seen["received"], seen["gain"] * seen["sent"], atol=0.15)  # 30 dB


@pytest.mark.parametrize(("words", "message"), [
    (["--channel", "bsc", "--snr", "3"], "`bsc` carries bits"),
    (["--channel", "bsc", "--symbols", "{tmp}/s.npy"], "`bsc` carries bits"),
    (["--snr", "nan"], "Es/N0 in dB should be from -100 to 200, not nan"),
    (["--snr", "5000"], "Es/N0 in dB should be from -100 to 200, not 5000"),
    (["-s", "channel.snr_db=5000"], "`snr_db` should be less than or equal to 200"),
    (["--channel", "nope"], 'no channel called "nope"'),
    (["--soft", "--bits", "{tmp}/b.txt"], "--soft sends no bits"),
    (["--bits", "{tmp}/b.png"], "is not one of .txt, .npy"),
    (["--symbols", "{tmp}/s.wav"], "is not one of .npy, .npz, .cf32"),
    (["--out", "{tmp}/r.txt"], "--out FILE.csv"),
    (["-s", "channel.labels=identity", "-s", "quantizer.codebook_size=30"], "changes the shape of what was trained"),
    (["--bits", "{tmp}/x.txt", "--out", "{tmp}/x.csv", "--symbols", "{tmp}/no/s.npy"], "there is no folder"),
])  # fmt: skip
def test_what_cannot_be_is_one_error(home: Path, tmp_path: Path, words: list[str], message: str) -> None:
    done = within("transmit", home / "run", home / "mine", *(word.format(tmp=tmp_path) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_another_form_are_refused_or_scaled(home: Path, tmp_path: Path) -> None:
    Image.fromarray(columns()["test_images"][1]).resize((32, 32)).convert("RGB").save(tmp_path / "big.png")
    done = within("transmit", home / "run", tmp_path / "big.png", "--snr", 30)
    assert done.returncode == 2
    assert "-s data.size=8 scales them" in done.stderr
    done = within("transmit", home / "run", tmp_path / "big.png", "--snr", 30, "-s", "data.size=8")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].startswith("big.png,1,")
    assert "scaled to 8 x 8" in done.stderr
    (tmp_path / "broken.png").write_bytes(b"no picture")
    done = within("classify", home / "run", tmp_path, "-s", "data.size=8", "--out", tmp_path / "r.csv")
    assert done.returncode == 1  # the rest is written, and what was left out is said
    assert len(rows(tmp_path / "r.csv")) == 1
    assert "broken.png" in done.stderr


def test_classify_is_for_models_without_a_channel_too(home: Path, tmp_path: Path) -> None:
    text = RECIPE[: RECIPE.index("[channel]")] + RECIPE[RECIPE.index("[classifier]") : RECIPE.index("best =")]
    text += '[[stage]]\nname = "plain"\ntask = "classify"\nsteps = 40\n'
    text += "losses = { cross-entropy = 1.0, commitment = 0.25 }\n"
    (home / "plain.toml").write_text(text)
    assert within("train", home / "plain.toml", "-o", tmp_path / "run").returncode == 0
    answers = document("classify", tmp_path / "run", home / "mine")["answers"]
    assert [row["label"] for row in answers] == ["0", "1", "2", "3", "0", "1"]
    assert set(answers[0]) == {"input", "label", "probability"}
    done = within("transmit", tmp_path / "run", home / "mine")
    assert done.returncode == 2
    assert "cannot transmit; it was trained with `classify`, without a [channel]" in done.stderr
    paths = document("export", tmp_path / "run", "--to", "pt2", "-o", tmp_path / "out")["paths"]
    assert set(paths) == {"classify"}


def test_its_codes_are_read(home: Path, tmp_path: Path) -> None:
    done = within("encode", home / "run", home / "mine", "--out", tmp_path / "codes.st")
    assert done.returncode == 0, done.stderr
    assert "codes (6, 4, 1)" in done.stderr
    figures = document("codes", home / "run")
    assert figures["figures"]["probe.macro_f1"] > 0.3


def test_its_ends_apart_in_python(home: Path) -> None:
    """What is sent arrives whole without noise, as symbols and as LLRs; at an SNR `transmit` is the whole way."""
    model = load(home / "run")
    x = torch.from_numpy(columns()["test_images"][:8]).float()[:, None] / 255
    sent = model.transmit(x)
    assert {name: tuple(value.shape) for name, value in sent.items()} == {"bits": (8, 20), "symbols": (8, 5, 2)}
    assert set(sent["bits"].unique().tolist()) == {0, 1}
    whole = model.transmit(x, 60.0)
    pairs = sent["symbols"]
    for symbols in (pairs, torch.view_as_complex(pairs), torch.view_as_complex(pairs).numpy()):
        torch.testing.assert_close(model.receive(symbols=symbols, snr_db=60.0), whole, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.receive(llr=60 * (2 * sent["bits"] - 1)), whole, atol=1e-3, rtol=1e-3)
    for llr in (torch.inf * (2 * sent["bits"] - 1), 60 * (2 * sent["bits"] - 1).long()):
        torch.testing.assert_close(model.receive(llr=llr), whole, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.receive(symbols=pairs, snr_db=1e9), whole, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(model.receive(symbols=pairs, snr_db=torch.zeros(8)), whole, atol=1e-3)
    assert model.transmit(x, 6.0, soft=True).shape == whole.shape
    known = {"symbols": pairs, "snr_db": 6.0}
    for wrong in ({}, {"bits": sent["bits"]}, {"llr": sent["bits"][:, :7]}, known | {"symbols": pairs[:, :2]},
                  known | {"snr_db": torch.zeros(3)}, known | {"snr_db": 6j}, {"llr": 1j * sent["bits"]},
                  known | {"gain": pairs}):  # fmt: skip
        with pytest.raises(VqtoolError, match=r"takes `symbols` and `snr_db` or `llr`|should"):
            model.receive(**wrong)


def test_a_receiver_under_fading_takes_the_gain(pictures: Callable[..., Path]) -> None:
    recipe = pictures().parent / "link.toml"
    recipe.write_text(RECIPE)
    model, batch = built(recipe, "channel.kind=rayleigh")
    sent = model.transmit(batch)
    gain = torch.randn(32, 5, dtype=torch.complex64)
    symbols = torch.view_as_complex(sent["symbols"])
    wanted = model.receive(llr=60 * (2 * sent["bits"] - 1))
    got = model.receive(symbols=gain * symbols, gain=gain, snr_db=80.0)
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)
    with pytest.raises(VqtoolError, match="takes `symbols` and `gain` and `snr_db` or `llr`, not `symbols`"):
        model.receive(symbols=symbols)


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_its_ends_are_exported_apart(home: Path, tmp_path: Path, to: str) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    paths = document("export", home / "run", "--to", to, "-o", tmp_path)["paths"]
    assert {name: (one["inputs"], one["outputs"]) for name, one in paths.items()} == {
        "transmit": (["x"], ["bits", "symbols"]),
        "receive": (["symbols", "snr_db"], ["logits"]),
        "receive-llr": (["llr"], ["logits"]),
    }
    model = load(home / "run")
    x = torch.from_numpy(columns()["test_images"][:5]).float()[:, None] / 255
    sent, snr = model.transmit(x), torch.full((5,), 9.0)

    def ran(name: str, **given: torch.Tensor) -> torch.Tensor:
        if to == "pt2":
            return torch.export.load(tmp_path / f"{name}.pt2").module()(*given.values())[-1]
        import onnxruntime

        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        return torch.from_numpy(session.run(None, {key: value.numpy() for key, value in given.items()})[-1])

    symbols = ran("transmit", x=x)
    torch.testing.assert_close(symbols, sent["symbols"])
    wanted = model.receive(symbols=symbols, snr_db=snr)
    torch.testing.assert_close(ran("receive", symbols=symbols, snr_db=snr), wanted, atol=1e-4, rtol=1e-4)


def test_a_code_for_the_bits_by_name(home: Path, tmp_path: Path) -> None:
    """No training: 20 bits and 6 zeros are 52 coded bits on 13 symbols, and all of them are in the files."""
    coded = ["-s", "channel.fec=convolutional"]
    bits, symbols = tmp_path / "b.txt", tmp_path / "s.npy"
    answers = document(
        "transmit", home / "run", home / "mine", "--snr", 9, "--bits", bits, "--symbols", symbols, *coded
    )["answers"]
    assert {(row["bits"], row["symbols"]) for row in answers} == {(52, 13)}
    assert {len(line) for line in bits.read_text().splitlines()} == {52}
    assert np.load(symbols).shape == (6, 13)
    figures = document("evaluate", home / "run", *coded)["splits"]["test"]["model"]
    assert figures["ber.decoded.12db"] < figures["ber.12db"] == pytest.approx(figures["ber.theory.12db"], rel=0.3)
    assert figures["bits"] == 52


def test_a_coded_receiver_is_exported(home: Path, tmp_path: Path) -> None:
    text = RECIPE.replace('baselines = ["pixels"]\n', "").replace("steps = 60", "steps = 2")
    (home / "coded.toml").write_text(text.replace('kind = "awgn"', 'kind = "awgn"\nfec = "convolutional"'))
    assert within("train", home / "coded.toml", "-o", tmp_path / "run").returncode == 0
    paths = document("export", tmp_path / "run", "--to", "pt2", "-o", tmp_path / "out")["paths"]
    assert set(paths) == {"transmit", "receive", "receive-llr"}
    symbols, snr = torch.randn(5, 13, 2, generator=torch.Generator().manual_seed(0)), torch.full((5,), 3.0)
    got = torch.export.load(tmp_path / "out" / "receive.pt2").module()(symbols, snr)[-1]
    wanted = load(tmp_path / "run").receive(symbols=symbols, snr_db=snr)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_routed_windows_are_sent_but_have_no_ends_apart(home: Path, tmp_path: Path) -> None:
    (home / "mixture.toml").write_text(mixture().replace("steps = 60", "steps = 5"))
    assert within("train", home / "mixture.toml", "-o", tmp_path / "run").returncode == 0
    bits = tmp_path / "b.txt"
    answers = document("transmit", tmp_path / "run", home / "mine", "--snr", 12, "--bits", bits, "--symbols",
                       tmp_path / "s.npy")["answers"]  # fmt: skip
    assert [len(line) for line in bits.read_text().splitlines()] == [row["bits"] for row in answers]
    assert np.isfinite(np.load(tmp_path / "s.npy")).sum(1).max() <= max(row["symbols"] for row in answers)
    done = within("export", tmp_path / "run", "-o", tmp_path / "out", "--to", "pt2")
    assert done.returncode == 2
    assert "cannot be used apart" in done.stderr
    one_mode, _ = built(home / "mixture.toml", "quantizer.modes=1", "channel.order=16")
    with pytest.raises(VqtoolError, match="which route each window took"):
        one_mode.receive(llr=torch.zeros(2, 4 * (2 + 5)))
