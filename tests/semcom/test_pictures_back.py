"""Pictures over a link: the task `autoencode` with a channel, `vqtool transmit` of it, its ends apart, and JPEG."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.run import document, within
from tests.images.conftest import columns
from tests.semcom.test_classify import built
from vqtool.api import DataSpec, Field, Parts
from vqtool.errors import VqtoolError
from vqtool.model.load import load
from vqtool_semcom.baselines.jpeg_at_capacity import JpegAtCapacity
from vqtool_semcom.baselines.jpeg_coded import JpegCoded
from vqtool_semcom.channels.awgn import Awgn
from vqtool_semcom.channels.bsc import Bsc
from vqtool_semcom.channels.rayleigh import Rayleigh
from vqtool_semcom.jpegs import coefficient_bits, sizes

RECIPE = """
[data]
kind = "labelled-images"
path = "pictures.npz"
[encoder]
kind = "conv2d"
tokens = 8
dim = 6
widths = [8, 8]
features = 32
[quantizer]
kind = "soft-ema"
codebook_size = 16
[channel]
kind = "awgn"
report_db = [-30.0, 3.0, 60.0]
[decoder]
kind = "conv2d"
widths = [8, 8]
features = 32
[train]
batch = 16
lr = 5e-3
best = "psnr.db.3db"
best_mode = "max"
[evaluate]
metrics = ["psnr", "ssim", "received", "codes"]
baselines = [{ kind = "jpeg-at-capacity", design = 3 }, { kind = "jpeg-at-capacity", design = 30 },
    { kind = "jpeg-coded", order = 4 }]
[[stage]]
name = "link"
task = "autoencode"
steps = 150
losses = { mse = 1.0, commitment = 0.25, received-latent = 0.01 }
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A link that draws pictures again, what it said of itself, and pictures as files."""
    folder = tmp_path_factory.mktemp("link")
    found = columns()
    np.savez(folder / "pictures.npz", **found)
    (folder / "link.toml").write_text(RECIPE)
    done = within("train", folder / "link.toml", "-o", folder / "run")
    assert done.returncode == 0, done.stderr
    (folder / "mine" / "sub").mkdir(parents=True)
    for at, image in enumerate(found["test_images"][:6]):
        Image.fromarray(image).save(folder / "mine" / ("sub" if at > 3 else "") / f"{at}.png")
    return folder


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_level_is_measured_beside_the_codes_as_sent(home: Path) -> None:
    result = document("evaluate", home / "run")["splits"]["test"]
    model = result["model"]
    for metric in ("psnr.db", "ssim"):
        levels = [model[f"{metric}.{at}db"] for at in (-30, 3, 60)]
        assert levels == sorted(levels)
        assert levels[0] < levels[1] < levels[2]
        assert model[f"{metric}.60db"] == pytest.approx(model[f"{metric}.no-channel"], abs=1e-3)
        assert model[metric] == pytest.approx(model[f"{metric}.60db"], rel=0.1)  # 12 dB, the channel's own level
        assert f"{metric}.soft.3db" in model
    assert model["psnr.db.60db"] > model["psnr.db.-30db"] + 3
    assert model["ber.3db"] == pytest.approx(model["ber.theory.3db"], abs=0.03)
    early, late = (result["baselines"][f"jpeg-at-capacity design={at}"] for at in ("3", "30"))
    assert early["psnr.db.3db"] == early["psnr.db.60db"] == early["psnr.db.no-channel"]
    assert early["psnr.db.-30db"] == late["psnr.db.3db"] == late["psnr.db"]  # the mean picture, below the cliff
    assert late["psnr.db.60db"] > early["psnr.db.60db"] > early["psnr.db.-30db"]
    coded = result["baselines"]["jpeg-coded order=4"]
    assert coded["psnr.db.-30db"] == pytest.approx(early["psnr.db.-30db"])
    assert coded["psnr.db.60db"] == pytest.approx(coded["psnr.db.no-channel"])


def test_the_gradient_passes_and_losses_read_what_arrives(pictures: Callable[..., Path]) -> None:
    recipe = pictures().parent / "link.toml"
    recipe.write_text(RECIPE)
    model, batch = built(recipe, "channel.gradient=straight-through", "channel.train_db=[-100.0,-100.0]")
    task = model.tasks["link"]
    task.begin(model.parts)
    assert bool(model.parts.channel.prepared)
    outputs = task.step(model.parts.train(), batch)
    outputs["x_hat"].square().sum().backward()
    assert float(next(model.parts.encoder.parameters()).grad.abs().max()) > 0
    assert float(outputs["figures"]["ber"]) == pytest.approx(0.5, abs=0.1)
    sent = model.parts.decoder(outputs["quantized"].z)  # the decoder did not see the codes, but what is left of them
    assert float((outputs["x_hat"] - sent).detach().abs().max()) > 1e-3
    assert outputs["received"].z.shape == outputs["quantized"].z.shape


def test_without_a_channel_nothing_is_sent(pictures: Callable[..., Path]) -> None:
    recipe = pictures().parent / "link.toml"
    recipe.write_text(RECIPE.replace(", received-latent = 0.01", ""))
    model, batch = built(recipe, without=("channel",))
    assert set(model.tasks["link"].estimate(model.parts.eval(), batch).x_hat) == {"", "reconstruction", "shuffled"}
    for call in (lambda: model.transmit(batch["x"], 12.0), lambda: model.receive(llr=torch.zeros(1, 32))):
        with pytest.raises(VqtoolError, match=r"it was trained with `autoencode`, without a \[channel\]"):
            call()


def test_pictures_arrive_as_files_and_a_row_each(home: Path, tmp_path: Path) -> None:
    done = within("transmit", home / "run", home / "mine", "--snr", 60, "--out", tmp_path / "got")
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout)
    assert list(table[0]) == ["input", "psnr.db", "bits", "symbols", "bit_errors"]
    assert [row["input"] for row in table] == ["0.png", "1.png", "2.png", "3.png", "sub/4.png", "sub/5.png"]
    assert {(row["bits"], row["symbols"], row["bit_errors"]) for row in table} == {("32", "8", "0")}
    for row in table:
        folders = home / "mine", tmp_path / "got"
        original, got = (np.array(Image.open(folder / row["input"])) / 255.0 for folder in folders)
        psnr = -10 * np.log10(np.square(original - got).mean())
        assert float(row["psnr.db"]) == pytest.approx(psnr, abs=0.1)  # bytes are rounded
    bad = within("transmit", home / "run", home / "mine", "--snr", -20, "--out", tmp_path / "bad.npz")
    assert sum(int(row["bit_errors"]) for row in rows(bad.stdout)) > 40
    mean = np.mean([float(row["psnr.db"]) for row in table])
    assert np.mean([float(row["psnr.db"]) for row in rows(bad.stdout)]) < mean - 2
    assert np.load(tmp_path / "bad.npz")["x"].shape == (6, 1, 8, 8)
    done = within("transmit", home / "run", home / "mine", "--snr", 60, "--out", tmp_path / "t.csv", "--bits",
                  tmp_path / "b.txt")  # fmt: skip
    assert rows((tmp_path / "t.csv").read_text()) == table
    assert [len(line) for line in (tmp_path / "b.txt").read_text().split()] == [32] * 6
    assert len(document("transmit", home / "run", home / "pictures.npz", "--snr", 6)["answers"]) == 200


@pytest.mark.parametrize(("words", "message"), [
    (["--out", "{tmp}/got.txt"], "--out FILE.png, FILE.npz, or a new folder"),
    (["--out", "{tmp}/got.png"], "there are 6 pictures, and one in a PNG"),
    (["--out", "{home}/mine"], "exists already"),
    (["--out", "{tmp}/no/got"], "there is no folder"),
    (["--doubt", "0.5"], "that takes a model that classifies"),
])  # fmt: skip
def test_what_cannot_be_written_is_one_error(home: Path, tmp_path: Path, words: list[str], message: str) -> None:
    done = within("transmit", home / "run", home / "mine", *(w.format(tmp=tmp_path, home=home) for w in words))
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_its_ends_apart_and_its_codes(home: Path, tmp_path: Path) -> None:
    model = load(home / "run")
    x = torch.from_numpy(columns()["test_images"][:5]).float()[:, None] / 255
    sent = model.transmit(x)
    assert {name: tuple(value.shape) for name, value in sent.items()} == {"bits": (5, 32), "symbols": (5, 8, 2)}
    whole = model.transmit(x, 60.0)
    assert whole.shape == x.shape
    for arrived in ({"symbols": sent["symbols"], "snr_db": 60.0}, {"llr": 60 * (2 * sent["bits"] - 1)}):
        torch.testing.assert_close(model.receive(**arrived), whole, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.decode(model.encode(x)), whole, atol=1e-3, rtol=1e-3)
    model.parts.quantizer.temperature = 5.0
    assert not torch.allclose(model.transmit(x, 60.0, soft=True), whole, atol=1e-2)
    with pytest.raises(VqtoolError, match="that takes a model that classifies"):
        model.transmit(x, 60.0, doubt=0.5)
    paths = document("export", home / "run", "--to", "pt2", "-o", tmp_path)["paths"]
    assert {name: (one["inputs"], one["outputs"]) for name, one in paths.items()} == {
        "encode": (["x"], ["codes"]), "decode": (["codes"], ["x_hat"]), "transmit": (["x"], ["bits", "symbols"]),
        "receive": (["symbols", "snr_db"], ["x_hat"]), "receive-llr": (["llr"], ["x_hat"]),
    }  # fmt: skip
    received = torch.export.load(tmp_path / "receive.pt2").module()(sent["symbols"], torch.full((5,), 60.0))[-1]
    torch.testing.assert_close(received, whole, atol=1e-3, rtol=1e-3)


SPEC = DataSpec({"x": Field((1, 24, 20), "signal")})


class Stride:
    stride = 24 * 20 // 8


def jpeg(channel: object, design: float, spec: DataSpec = SPEC) -> JpegAtCapacity:
    """The baseline for eight tokens of 8 bits, 16 uses of 16-QAM."""
    parts = Parts()
    object.__setattr__(parts, "channel", channel)
    object.__setattr__(parts, "encoder", Stride)
    baseline = JpegAtCapacity(spec, design=design)
    baseline.prepare(parts)
    return baseline


def test_jpeg_has_the_bits_that_the_capacity_allows() -> None:
    assert jpeg(Awgn((256,)), 0.0).bits == 16  # log2(1 + 1) bits a symbol
    assert jpeg(Awgn((256,)), 12.0).bits == int(16 * np.log2(1 + 10**1.2))
    assert jpeg(Awgn((256,), order=64), 0.0).bits == 11
    assert jpeg(Bsc((256,)), 0.5).bits == 0
    assert jpeg(Bsc((256,)), 0.11).bits == 32  # half a bit for each of 64
    assert jpeg(Bsc((256,), flip=0.2, report=(0.05,)), 0.11).whole == {"": False, ".0.05flip": True}
    for channel in (Rayleigh((256,)), None):
        with pytest.raises(VqtoolError, match="whose capacity is known: awgn or bsc"):
            jpeg(channel, 3.0)
    with pytest.raises(VqtoolError, match="`design` is Es/N0 in dB, from -100 to 200"):
        jpeg(Awgn((256,)), 500.0)
    with pytest.raises(VqtoolError, match="1 or 3 channels, and these pictures have 2"):
        JpegAtCapacity(DataSpec({"x": Field((2, 8, 8), "signal")}), design=0.0)


def coded(channel: object, **options: Any) -> JpegCoded:
    """JPEG with the convolutional code on 16 uses."""
    parts = Parts()
    object.__setattr__(parts, "channel", channel)
    object.__setattr__(parts, "encoder", Stride)
    baseline = JpegCoded(SPEC, **options)
    baseline.prepare(parts)
    return baseline


def test_jpeg_with_a_code_has_the_bits_that_fit_and_arrives_where_the_code_holds() -> None:
    assert coded(Awgn((256,))).bits == 26  # 64 coded bits, 12 of them for the zeros at the end
    assert coded(Awgn((256,)), order=4).bits == 10
    assert coded(Awgn((256,)), code_rate="3/4").bits == 42
    assert coded(Bsc((256,))).bits == 26  # a use is a bit
    assert coded(Rayleigh((256,), csi="pilots", block=4)).bits == 26  # on the symbols of data alone
    channel = Awgn((256,), report_db=(-30.0, -3.0, 2.0, 4.0, 60.0))
    torch.manual_seed(0)
    strong, weak = ({at: float(whole.float().mean()) for at, whole in coded(channel, order=order).arrives(400).items()}
                    for order in (4, 16))  # fmt: skip
    assert strong[".60db"] == weak[".60db"] == 1
    assert strong[".-30db"] < 0.02
    assert strong[".4db"] > 0.9
    assert strong[".2db"] > weak[".2db"] + 0.3
    assert 0.2 < strong[".-3db"] < 0.9
    assert channel.symbol_bits == (4,)  # the model's channel stays as it is
    assert not channel.fec.corrects
    with pytest.raises(VqtoolError, match="`order` of the baseline `jpeg-coded` is of QAM"):
        coded(Bsc((256,)), order=16)
    for other in (None, Awgn((256,), order=(4, 16))):
        with pytest.raises(VqtoolError, match="needs a channel that carries bits, in one mode"):
            coded(other)


def test_a_picture_with_a_wrong_bit_is_lost() -> None:
    baseline = coded(Awgn((256,), report_db=(-30.0, 60.0)))
    x = torch.rand(5, 1, 24, 20)
    baseline.fit(Known(x))
    found = baseline.predict({"x": x})["x_hat"]
    torch.testing.assert_close(found[".-30db"], x.mean(0).expand_as(x))
    torch.testing.assert_close(found[".60db"], found[".no-channel"])


class Known(list):
    """Rows that hold pictures."""

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {"x": torch.stack([self[i] for i in indices])}


@pytest.mark.parametrize("channels", [1, 3])
def test_more_bits_bring_jpeg_nearer_and_none_give_the_mean(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, channels, 6, 5, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (24, 20), mode="bilinear")
    spec = DataSpec({"x": Field((channels, 24, 20), "signal")}, metadata={"levels": [-1.0, 1.0]})
    errors = []
    for design in (-100.0, 12.0, 30.0, 90.0, 200.0):
        baseline = jpeg(Awgn((256,) * 8, report_db=(90.0,), snr_db=200.0), design, spec)
        baseline.fit(Known(2 * x - 1))
        found = baseline.predict({"x": 2 * x - 1})["x_hat"]
        assert found[""].shape == x.shape
        errors.append(float((found[""] - 2 * x + 1).square().mean()))
        if design == 200:
            torch.testing.assert_close(found[".90db"], (2 * x - 1).mean(0).expand_as(x))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(float((2 * x - 1 - (2 * x - 1).mean(0)).square().mean()))
    assert errors[-1] < 0.03 * errors[0]


def test_only_coefficients_are_counted() -> None:
    """More tables and remarks in a file cost nothing; a flat picture hardly anything."""
    rng = np.random.default_rng(0)

    def coded(pixels: np.ndarray, **how: object) -> bytes:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=50, **how)
        return content.getvalue()

    noise = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    plain, remark = coded(noise), coded(noise, comment=b"x" * 500)
    assert coefficient_bits(plain) == coefficient_bits(remark)
    header = plain.index(b"\xff\xda")
    assert 8 * (len(plain) - header) > coefficient_bits(plain) > 8 * (len(plain) - header) * 0.95
    assert coefficient_bits(coded(np.full((8, 8), 128, np.uint8))) <= 8


def test_pictures_are_shrunk_to_whole_blocks() -> None:
    assert sizes(28, 28) == [(28, 28), (24, 24), (16, 16), (8, 8)]
    assert sizes(8, 8) == [(8, 8)]
    assert sizes(32, 16) == [(16, 32), (12, 24), (8, 16), (4, 8)]
    assert len(sizes(512, 512)) < 20
