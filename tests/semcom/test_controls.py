"""The controls of learning a link soft and aligning it hard: entropies, temperature, received vectors, both logits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.run import within
from tests.semcom.test_channels import quantized
from tests.semcom.test_classify import RECIPE, built
from vqtool.api import Quantized, Received
from vqtool.errors import VqtoolError
from vqtool_semcom.channels.awgn import Awgn
from vqtool_semcom.channels.bsc import Bsc
from vqtool_semcom.losses.received_latent import ReceivedLatent
from vqtool_semcom.losses.symbol_entropy import SymbolEntropy
from vqtool_semcom.qam import Qam


@pytest.mark.parametrize("order", [4, 16, 64])
def test_the_distribution_over_points_is_that_of_the_symbol(order: int) -> None:
    """Its mean is the soft symbol, and certain bits are one point."""
    qam = Qam(order)
    bits = torch.rand(5, 3 * qam.bits, generator=torch.Generator().manual_seed(0))
    weights = qam.weights(bits)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 3))
    torch.testing.assert_close(weights @ qam.points, qam.symbols(bits))
    certain = qam.weights(qam.labels.float())[:, 0]
    assert torch.equal(certain, torch.eye(order))


def received_of(probs: torch.Tensor, **options: object) -> Received:
    sent, tables, _ = quantized(16, 4)
    channel = Awgn((16,), labels="identity", **options).train()
    return channel(Quantized(z=sent.z, codes=sent.codes, hard=sent.hard, probs=probs), tables)


def test_entropies_of_symbols() -> None:
    """16 codes on 16 points: one each is decided and even; even probabilities are undecided, one code is uneven."""
    spec = None
    _, _, scores = quantized(16, 4)
    even = torch.full_like(scores, 1 / 16).detach().requires_grad_()
    one = torch.nn.functional.one_hot(torch.zeros(6, 4, 1, dtype=torch.long), 16).float()
    every = torch.nn.functional.one_hot(torch.arange(16).repeat(2)[:24].view(6, 4, 1), 16).float()
    choice, use = SymbolEntropy(spec), SymbolEntropy(spec, of="use")  # type: ignore[arg-type]  # it reads no spec
    assert float(choice(received=received_of(even)).detach()) == pytest.approx(4)
    assert float(use(received=received_of(even)).detach()) == pytest.approx(0, abs=1e-5)
    assert float(choice(received=received_of(one))) == pytest.approx(0, abs=1e-5)
    assert float(use(received=received_of(one))) == pytest.approx(4)
    assert float(use(received=received_of(every))) < 0.2
    assert float(choice(received=received_of(one, soft_symbol=1.0))) == pytest.approx(2.33 / math.log(2), abs=0.03)
    choice(received=received_of(scores.softmax(-1))).backward()
    assert float(scores.grad.abs().max()) > 0
    bits = Bsc((16,)).train()(quantized(16, 4)[0], quantized(16, 4)[1])
    with pytest.raises(VqtoolError, match="no soft symbols"):
        choice(received=bits)


def test_received_vectors_are_pulled_to_those_sent() -> None:
    sent, tables, scores = quantized(16, 4, rows=200)
    loss = ReceivedLatent(None)  # type: ignore[arg-type]  # it reads no spec
    values = []
    for level in (40.0, 0.0):
        received = Awgn((16,), gradient="link").train()(sent, tables, level=level)
        values.append(float(loss(received=received, quantized=sent).detach()))
    assert values[0] == pytest.approx(0, abs=1e-3)
    assert 0.3 < values[1] < 1.5
    received = Awgn((16,), gradient="link").train()(sent, tables, level=5.0)
    loss(received=received, quantized=sent).backward()
    assert float(scores.grad.abs().max()) > 0


def test_all_of_them_can_be_said_in_a_recipe(pictures: Callable[..., Path], tmp_path: Path) -> None:
    text = RECIPE[: RECIPE.index("losses = ")].replace(
        'baselines = ["pixels"]\n', "").replace("steps = 60", "steps = 20") + """
options = { both = true }
stop_when = { "consistency.12db" = "< 1e9", "accuracy.hard.12db" = ">= 0" }
valid_every = 10
log_every = 1
[stage.losses]
cross-entropy = 1.0
received-latent = 0.1
alignment = { weight = 0.1, stages = ["vectors", "logits"] }
symbol-entropy = 0.0
[stage.schedule]
"losses.symbol-entropy" = { kind = "linear", from = 0.0, to = 0.02, end = 0.5 }
"channel.soft_symbol" = { kind = "geometric", from = 0.7, to = 0.1 }
"""  # fmt: skip
    recipe = pictures().parent / "link.toml"
    recipe.write_text(text)
    done = within("train", recipe, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    train = [row for row in rows if row["split"] == "train"]
    assert all(row["received-latent"] > 0 and row["alignment"] > 0 for row in train)
    assert train[0]["channel.soft_symbol"] == pytest.approx(0.7)
    assert train[-1]["step"] == 10  # both conditions held at the first validation
    assert "consistency.12db" in next(row for row in rows if row["split"] == "valid")


def test_logits_of_both_paths_only_where_asked(pictures: Callable[..., Path]) -> None:
    recipe = pictures().parent / "link.toml"
    recipe.write_text(RECIPE)
    for both in (False, True):
        model, batch = built(recipe, f"stage.link.options.both={str(both).lower()}")
        task = model.tasks["link"]
        task.begin(model.parts)
        stages = task.step(model.parts.train(), batch)["received"].stages
        assert ("logits" in stages) == both


def test_improve_warns_of_a_gap_that_grows(
    pictures: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployed path alone is judged by `best`; a soft path that runs away from it is said."""
    recipe = pictures().parent / "link.toml"
    recipe.write_text(RECIPE.replace("steps = 60", "steps = 5").replace('baselines = ["pixels"]\n', ""))
    assert within("train", recipe, "-o", tmp_path / "run").returncode == 0
    for gaps, warned in (((0.011, 0.657), True), ((0.011, 0.02), False), ((0.7, 0.657), False)):
        given = iter([{"gap": gap} for gap in gaps])
        monkeypatch.setattr("vqtool.commands.improve.metrics", lambda *_, given=given: next(given))
        done = within("improve", tmp_path / "run", "--steps", 0, "--out", tmp_path / "better.safetensors", "--force")
        assert done.returncode == 0, done.stderr
        assert ("`gap` grew from 0.011 to 0.657" in done.stderr) == warned
