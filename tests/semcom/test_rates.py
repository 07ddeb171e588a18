"""One model for several rates: the first levels alone, at random in training, and on the bits that arrive best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cli.run import document, within
from tests.semcom.test_channels import quantized
from tests.semcom.test_classify import RECIPE, built
from vqtool.api import Parts
from vqtool.errors import VqtoolError
from vqtool.model.load import load
from vqtool.parts.tasks.classify import Classify, entropy_bits
from vqtool_semcom.bit_channel import first_levels
from vqtool_semcom.channels.awgn import Awgn
from vqtool_semcom.channels.bsc import Bsc

LEVELS = 3


def test_the_first_levels_are_sent_alone() -> None:
    """What arrives is the sum of their vectors, on as many symbols as they take."""
    sent, tables, _ = quantized(16, 5, books=LEVELS)
    for count in range(1, LEVELS + 1):
        for kind, level in ((Awgn, 90.0), (Bsc, 0.0)):
            channel = kind((16,) * LEVELS, labels="identity", send_levels=count).eval()
            received = channel(sent, tables, level=level)
            wanted = sum(tables[q][sent.codes[..., q]] for q in range(count))
            torch.testing.assert_close(received.hard, wanted, atol=1e-4, rtol=1e-4)
            assert torch.equal(received.codes, sent.codes[..., :count])
            assert received.figures["bits"].tolist() == [20 * count] * 6
            if kind is Awgn:
                assert received.figures["symbols"].tolist() == [5 * count] * 6
                ends = channel.send(sent)
                back = channel.receive({"symbols": ends["symbols"], "snr_db": torch.tensor(90.0)}, tables, 5)
                torch.testing.assert_close(back, wanted, atol=1e-4, rtol=1e-4)
    whole = Awgn((16,) * LEVELS, labels="identity").eval().send(sent)["bits"]
    first = Awgn((16,) * LEVELS, labels="identity", send_levels=1).eval().send(sent)["bits"]
    assert torch.equal(whole[:, :20], first)  # a prefix: more levels are sent on top


def test_training_sends_a_random_number_of_levels_and_evaluation_all() -> None:
    torch.manual_seed(0)
    sent, tables, _ = quantized(16, 5, books=LEVELS)
    channel = Awgn((16,) * LEVELS, random_levels=True)
    seen = {int(channel.train()(sent, tables).codes.shape[-1]) for _ in range(40)}
    assert seen == {1, 2, 3}
    assert channel.eval()(sent, tables).codes.shape[-1] == 3


def level_errors(channel: Awgn, rows: int = 400) -> Tensor:
    """The share of wrong codes of each level."""
    torch.manual_seed(0)
    sent, tables, _ = quantized(64, 8, rows=rows, books=LEVELS)
    received = channel.eval()(sent, tables, level=9.0)
    return (received.codes != sent.codes).double().mean((0, 1))


def test_protection_moves_errors_from_the_first_levels_to_the_last() -> None:
    """Gray 64-QAM: the first bit of an axis arrives best. No error is saved, each level has its own rate."""
    options = {"order": 64, "labels": "identity"}
    even = level_errors(Awgn((64,) * LEVELS, **options))
    protected = level_errors(Awgn((64,) * LEVELS, **options, protect=True))
    assert float(even.max() - even.min()) < 0.05
    assert float(protected[0]) < float(even[0]) - 0.1
    assert float(protected[2]) > float(even[2]) + 0.05
    assert protected.tolist() == sorted(protected.tolist())


@pytest.mark.parametrize("tokens", [5, 7])
def test_a_protected_link_without_noise_is_exact(tokens: int) -> None:
    """Padding included: 7 tokens of 3 x 5 bits fill no whole number of symbols."""
    sent, tables, _ = quantized(20, tokens, books=LEVELS)
    channel = Awgn((20,) * LEVELS, order=64, labels="identity", protect=True).eval()
    received = channel(sent, tables, level=90.0)
    assert torch.equal(received.codes, sent.codes)
    assert torch.equal(received.stages["llr"][1] > 0, received.trace["bits"] > 0.5)


def test_more_levels_than_there_are_is_an_error() -> None:
    with pytest.raises(VqtoolError, match="`send_levels` is 4, and there are 3 levels"):
        Awgn((16,) * 3, send_levels=4)


class Tables(torch.nn.Module):
    """A quantizer as far as a channel asks for it: the vectors of its codes."""

    def __init__(self, tables: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.tables = torch.nn.ParameterList(tables)
        self.codebook_sizes = tuple(len(table) for table in tables)
        self.additive = True

    def vectors(self) -> tuple[Tensor, ...]:
        return tuple(self.tables)

    def decode(self, codes: Tensor) -> Tensor:
        real = codes.clamp_min(0)
        each = [table[real[..., q]] * (codes[..., q, None] >= 0) for q, table in enumerate(self.tables)]
        return torch.stack(each).sum(0)


class Unsure(torch.nn.Module):
    """Scores of two classes from the first feature: the larger, the surer."""

    def forward(self, z: Tensor) -> Tensor:
        scale = z.detach()[:, 0, 0].abs()
        return torch.stack([scale, -scale], -1)


def test_the_next_level_is_sent_to_those_in_doubt_alone() -> None:
    """Each row gets what a link of as many levels gives it with the same noise, and asks again while it is unsure."""
    torch.manual_seed(0)
    sent, tables, _ = quantized(16, 4, rows=200, books=LEVELS)
    channel = Awgn((16,) * LEVELS, labels="identity").eval()
    noise, task = channel.draw(sent), Classify(doubt=0.7)
    parts = Parts({"channel": channel, "classifier": Unsure(), "quantizer": Tables(tables)})
    logits, received = task._heard(parts, sent, 6.0, noise)
    fewer = [channel(first_levels(sent, count), tables, level=6.0, noise=noise) for count in (1, 2, 3)]
    unsure = [entropy_bits(Unsure()(one.hard)) > 0.7 for one in fewer]
    levels = 1 + unsure[0].long() + (unsure[0] & unsure[1]).long()
    assert all((levels == count).any() for count in (1, 2, 3))
    for row, count in enumerate(levels.tolist()):
        one = fewer[count - 1]
        assert torch.equal(received.hard[row], one.hard[row])
        assert torch.equal(logits[row], Unsure()(one.hard)[row])
        assert received.codes[row, :, count:].eq(-1).all()
        assert torch.equal(received.codes[row, :, :count], one.codes[row])
        for name, value in one.figures.items():
            assert torch.equal(received.figures[name][row], value[row]), name
        for name, value in one.trace.items():
            assert torch.equal(received.trace[name][row, : value.shape[1]], value[row]), name
            assert received.trace[name][row, value.shape[1] :].isnan().all(), name
    assert received.figures["symbols"].tolist() == (4 * levels).tolist()


@pytest.mark.parametrize(
    ("options", "tokens", "said"),
    [({"protect": True}, 4, "share the symbols"), ({"order": 64}, 4, "should fill whole symbols of 6 bits")],
)
def test_levels_that_cannot_be_sent_alone(options: dict[str, Any], tokens: int, said: str) -> None:
    sent, tables, _ = quantized(16, tokens, books=LEVELS)
    with pytest.raises(VqtoolError, match=said):
        next(Awgn((16,) * LEVELS, **options).eval().rounds(sent, tables, None, None))
    sent, tables, _ = quantized(16, tokens)
    with pytest.raises(VqtoolError, match="has no levels to send"):
        next(Awgn((16,)).eval().rounds(sent, tables, None, None))


def test_doubt_needs_a_channel(pictures: Callable[..., Path]) -> None:
    recipe = pictures().parent / "link.toml"
    recipe.write_text(RECIPE)
    with pytest.raises(VqtoolError, match="`doubt` asks for more over a channel, and there is none"):
        built(recipe, "stage.link.options.doubt=1.0", without=("channel",))


def test_one_checkpoint_at_several_rates(pictures: Callable[..., Path], tmp_path: Path) -> None:
    text = RECIPE.replace('"soft-ema"\ncodebook_size = 20', '"residual-ema"\nlevels = 3\ncodebook_size = 8')
    text = text.replace('"awgn"', '"awgn"\nrandom_levels = true').replace('baselines = ["pixels"]\n', "")
    recipe = pictures().parent / "rates.toml"
    recipe.write_text(text[: text.index(", alignment")] + " }\n")
    assert within("train", recipe, "-o", tmp_path / "run").returncode == 0
    points = document("evaluate", tmp_path / "run", "--sweep", "channel.send_levels=1:3:1")["sweep"]["points"]
    assert [point["model"]["bits"] for point in points] == [12, 24, 36]
    assert all(point["model"]["accuracy.hard"] > 0.6 for point in points)
    answers = document("transmit", tmp_path / "run", tmp_path / "pictures.npz", "-s", "channel.send_levels=1")[
        "answers"
    ]
    assert {row["symbols"] for row in answers} == {3}
    sure, whole = (
        document("transmit", tmp_path / "run", tmp_path / "pictures.npz", "--snr", 3, "--doubt", doubt)["answers"]
        for doubt in (0.5, 0)
    )
    assert {row["symbols"] for row in whole} == {9}
    assert {row["symbols"] for row in sure} >= {3, 6}
    found = document("evaluate", tmp_path / "run", "-s", "stage.link.options.doubt=0.5")["splits"]["test"]["model"]
    assert 3 < found["symbols.3db"] < 9
    assert found["symbols.12db"] < found["symbols.3db"]  # less noise, less doubt
    assert found["accuracy.hard.12db"] > 0.6
    assert found["token_errors.12db"] < 0.2  # of the codes that were sent
    refused = within("transmit", tmp_path / "run", tmp_path / "pictures.npz", "--doubt", 0.5, "--soft")
    assert (refused.returncode, "--soft sends all levels at once" in refused.stderr) == (2, True)
    as_in_python(load(tmp_path / "run"), tmp_path, sure, whole)


def as_in_python(model: Any, home: Path, sure: list[dict[str, Any]], whole: list[dict[str, Any]]) -> None:
    """`model.transmit(..., doubt=...)` is what `vqtool transmit --doubt` gave, and refuses the same."""
    (piece,) = model.files().open(home / "pictures.npz")
    for doubt, answers in ((0.5, sure), (0.0, whole)):
        torch.manual_seed(0)
        got = model.transmit(piece.batch["x"], 3.0, doubt=doubt).softmax(-1).max(-1).values
        torch.testing.assert_close(got, torch.tensor([row["probability"] for row in answers]), atol=1e-5, rtol=0)
    assert [row["probability"] for row in sure] != [row["probability"] for row in whole]
    x = piece.batch["x"][:2]
    for asked, said in (
        ({"snr_db": 3.0, "doubt": 0.5, "soft": True}, "`soft` sends all levels at once"),
        ({"doubt": 0.5}, "`doubt` needs an `snr_db`"),
        ({"snr_db": 3.0, "doubt": -1}, "from 0 on, not -1"),
        ({"snr_db": 3.0, "doubt": float("nan")}, "from 0 on, not nan"),
        ({"snr_db": 3.0, "doubt": "much"}, "from 0 on, not 'much'"),
    ):
        with pytest.raises(VqtoolError, match=said):
            model.transmit(x, **asked)
