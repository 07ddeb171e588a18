"""The task from picture to class scores, its metrics and its baselines, on pictures that can be distinguished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.run import document, vqtool
from vqtool.api import Classifies, Received
from vqtool.errors import VqtoolError
from vqtool.model.build import build
from vqtool.model.data import open_data
from vqtool.recipe import parse
from vqtool.training.evaluate import evaluate_baselines, note_missing
from vqtool_semcom.baselines.separate import Separate

RECIPE = """
[data]
kind = "labelled-images"
path = "pictures.npz"
[encoder]
kind = "conv2d"
tokens = 4
dim = 6
widths = [8, 8]
features = 32
[quantizer]
kind = "soft-ema"
codebook_size = 20
[channel]
kind = "awgn"
report_db = [3.0, 12.0]
[classifier]
kind = "mlp"
width = 32
[train]
batch = 16
lr = 5e-3
best = "accuracy.hard.12db"
best_mode = "max"
[evaluate]
baselines = ["pixels"]
[[stage]]
name = "link"
task = "classify"
steps = 60
losses = { cross-entropy = 1.0, commitment = 0.25, alignment = { weight = 0.1, stages = ["bits", "symbols", "llr"] } }
"""


@pytest.fixture
def recipe(pictures: Callable[..., Path]) -> Path:
    path = pictures().parent / "link.toml"
    path.write_text(RECIPE)
    return path


def built(recipe: Path, *overrides: str, without: tuple[str, ...] = ()) -> tuple:
    """The model, started, and a batch."""
    text = recipe.read_text()
    for table in without:
        begin = text.index(f"[{table}]")
        text = text[:begin] + text[text.index("\n[", begin) + 1 :]
        text = (
            text.replace(", alignment = { weight", ", unused = { weight") if table in ("channel", "quantizer") else text
        )
    text = text[: text.index(", unused")] + " }\n" if ", unused" in text else text
    text = text.replace(", commitment = 0.25", "") if "quantizer" in without else text
    loaded = parse(text, path=recipe, overrides=overrides)
    data = open_data(loaded)
    model = build(loaded, data.spec)
    batch = data.rows("train").__getitems__(list(range(32)))
    if "quantizer" in model.parts:
        model.parts.quantizer.initialise(model.parts.encoder(batch["x"]))
    return model, batch


def test_a_short_run_learns_and_is_deployed(recipe: Path, tmp_path: Path) -> None:
    result = document("train", recipe, "-o", tmp_path / "run")["splits"]["test"]
    model, pixels = result["model"], result["baselines"]["pixels"]
    assert model["accuracy.hard.12db"] > 0.8  # four classes
    assert pixels["accuracy.hard.12db"] > 0.8
    assert {"accuracy.hard", "accuracy.soft.3db", "accuracy.no-channel", "gap.12db", "consistency.3db", "tx_power.12db",
            "tx_power.soft.12db", "ber.12db", "ber.theory.12db", "llr.ratio.3db", "entropy.use", "entropy.token",
            "codes.used", "codes.perplexity"} <= set(model)  # fmt: skip
    assert model["gap.12db"] == pytest.approx(abs(model["accuracy.soft.12db"] - model["accuracy.hard.12db"]))

    again = document("evaluate", tmp_path / "run")["splits"]["test"]
    assert again["baselines"] == result["baselines"]  # the noise of a baseline's channel too

    swept = document("evaluate", tmp_path / "run", "--sweep", "channel.snr_db=-6:12:18", "-s", "channel.kind=rayleigh",
                     "-s", "quantizer.temperature=5.0")  # fmt: skip
    low, high = swept["sweep"]["points"]
    assert high["model"]["entropy.token"] > model["entropy.token"] + 1  # a knob that was set anew is not the file's
    assert low["model"]["accuracy.hard"] < high["model"]["accuracy.hard"]
    assert high["model"]["accuracy.hard"] == high["model"]["accuracy.hard.12db"]
    assert high["model"]["ber.theory"] == pytest.approx(0.0881, abs=1e-3)  # fading: awgn has 0.028 there
    assert low["baselines"]["pixels"]["accuracy.hard"] < high["baselines"]["pixels"]["accuracy.hard"]


def test_both_phases_of_a_two_phase_run(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(
        RECIPE.replace("steps = 60", 'steps = 20\nset = { "channel.hard" = 0.0 }').replace('"link"', '"learn"')
        + '\n[[stage]]\nname = "align"\ntask = "classify"\nsteps = 20\nvalid_every = 5\npatience = 1\n'
        "patience_after = 0.5\nlosses = { cross-entropy = 1.0, alignment = 0.5 }\n"
        'schedule."channel.hard" = { kind = "linear", from = 0.0, to = 1.0, end = 0.5 }\n'
    )
    done = vqtool("train", recipe, "-o", tmp_path / "run", "-s", "channel.gradient=link")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["stage"] == "align" and row["split"] == "valid"]
    assert max(steps) > 10  # patience is not armed before the hard path is all there is
    assert all("accuracy.hard.12db" in row for row in rows if row["split"] == "valid")


@pytest.mark.parametrize("without", [(), ("channel",), ("channel", "quantizer")])
def test_quantizer_and_channel_may_be_left_out(recipe: Path, without: tuple[str, ...]) -> None:
    model, batch = built(recipe, without=without)
    task = model.tasks["link"]
    task.begin(model.parts)
    outputs = task.step(model.parts.train(), batch)
    assert outputs["logits"].shape == (32, 4)
    outputs["logits"].square().sum().backward()
    assert float(next(model.parts.encoder.parameters()).grad.abs().max()) > 0
    assert isinstance(task, Classifies)
    assert task.classify(model.parts.eval(), batch).shape == (32, 4)
    scores = task.estimate(model.parts, batch).named["scores"]
    assert ("hard.12db" in scores) == (not without)


def test_every_level_meets_the_same_noise(recipe: Path) -> None:
    model, batch = built(recipe)
    received = model.tasks["link"].estimate(model.parts.eval(), batch).named["received"]
    assert set(received) == {"", ".3db", ".12db"}
    torch.testing.assert_close(received[""].hard, received[".12db"].hard)  # snr_db is 12


def test_alignment_holds_the_hard_side_fixed_and_knows_no_scale(recipe: Path) -> None:
    from vqtool_semcom.losses.alignment import Alignment

    model, _ = built(recipe)
    soft, hard = (torch.randn(50, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(2))

    def loss(scale: float) -> torch.Tensor:
        z = torch.zeros(1)
        received = Received(z, z, z, None, {"vectors": (scale * soft, scale * hard)})
        return Alignment(model.spec)(received=received)

    loss(1.0).backward()
    assert hard.grad is None
    assert float(soft.grad.abs().max()) > 0
    assert loss(100.0).item() == pytest.approx(loss(1.0).item(), rel=1e-4)
    with pytest.raises(VqtoolError, match="no stage `vectors`"):
        Alignment(model.spec)(received=Received(torch.zeros(1), torch.zeros(1), torch.zeros(1)))


def test_the_separate_scheme_fits_the_links_symbols(recipe: Path, tmp_path: Path) -> None:
    """64 bits of 16 codes of 4 bits, 16 symbols, carry 26 bits under the code: 5 x 5 pixels of 1 bit, sent coded."""
    model, batch = built(recipe, "encoder.tokens=16", "quantizer.codebook_size=16")
    figures = {}
    for rate, side in (("1/2", 5), ("3/4", 6)):
        baseline = Separate(model.spec, pixel_bits=1, code_rate=rate)
        baseline.prepare(model.parts)
        assert baseline.side == side
        coded = baseline.channel.fec.coded(side**2)
        assert coded <= 64 < baseline.channel.fec.coded((side + 1) ** 2)
        baseline.net = torch.nn.Identity()
        torch.manual_seed(0)
        got = baseline.predict(batch)["scores"]
        torch.testing.assert_close(got["hard.12db"], baseline._shown(baseline._pixels(batch["x"])), atol=0.5, rtol=0)
        figures[rate] = (got["hard.3db"] - got["hard.12db"]).abs().mean()
    assert figures["1/2"] > 0.1


def test_the_separate_scheme_falls_off_a_cliff(recipe: Path) -> None:
    """Above the threshold of the code its thumbnails arrive, below hardly anything does."""
    loaded = parse(recipe.read_text(), path=recipe, overrides=["encoder.tokens=16", "channel.report_db=[-6.0]"])
    data = open_data(loaded)
    model = build(loaded, data.spec)
    rows, test = data.rows("train"), data.rows("test")
    batch = test.__getitems__(list(range(len(test))))
    baseline = Separate(data.spec, pixel_bits=1)
    baseline.prepare(model.parts)
    baseline.fit(rows)
    torch.manual_seed(0)
    right = {level: float((s.argmax(1) == batch["label"]).float().mean())
             for level, s in baseline.predict(batch)["scores"].items()}  # fmt: skip
    assert right["hard"] > 0.8
    assert right["hard.-6db"] < 0.6
    with pytest.raises(VqtoolError, match="are too few or too many for a thumbnail"):
        Separate(data.spec, pixel_bits=60).prepare(model.parts)


def test_a_baseline_that_no_metric_reads_is_left_out_with_a_note(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JPEG draws pictures, and a classifier's metrics read none."""
    note_missing.cache_clear()
    model, _ = built(recipe, 'evaluate.baselines=["pixels", { kind = "jpeg-at-capacity", design = 12 }]',
                     'evaluate.metrics=["accuracy"]')  # fmt: skip
    data = open_data(model.recipe)
    found = evaluate_baselines(model, data, {"test": data.rows("test")})["test"]
    assert list(found) == ["pixels"]
    assert "accuracy.hard" in found["pixels"]
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("left out: the baseline `jpeg-at-capacity design=12`: no metric of this evaluation reads") == 1


@pytest.mark.parametrize("kind", ["conv1d", "patch"])
def test_an_encoder_of_windows_refuses_pictures(recipe: Path, kind: str) -> None:
    text = recipe.read_text().replace('"conv2d"\ntokens = 4\ndim = 6\nwidths = [8, 8]\nfeatures = 32', f'"{kind}"')
    recipe.write_text(text)
    with pytest.raises(VqtoolError, match="these data are images"):
        built(recipe)


def test_pictures_need_their_encoder(recipe: Path) -> None:
    with pytest.raises(VqtoolError, match="not a multiple of 7 tokens"):
        built(recipe, "encoder.tokens=7")


def test_a_model_classifies_and_transmits(recipe: Path) -> None:
    """At the recipe's own level `transmit` is `classify`, through the same noise; far below it the noise decides."""
    model, batch = built(recipe, "channel.snr_db=12.0")
    logits = []
    for call in (
        lambda: model.classify(batch["x"]),
        lambda: model.transmit(batch["x"], 12.0),
        lambda: model.transmit(batch, -20.0),
    ):
        torch.manual_seed(0)
        logits.append(call())
    (label,) = model.spec.named("label").values()
    assert logits[0].shape == (32, len(label.names))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    without, _ = built(recipe, without=("channel",))
    assert without.classify(batch["x"]).shape == logits[0].shape
    with pytest.raises(VqtoolError, match=r"cannot transmit; it was trained with `classify`, without a \[channel\]"):
        without.transmit(batch["x"], 12.0)
