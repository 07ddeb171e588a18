"""How a foreign module's width and layout are found: by trying, until codes and the table that they index are seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqtool.conformance import FOREIGN_LAWS, infer_interface, judge_all
from vqtool.conformance.codebooks import levels_of
from vqtool.conformance.foreign_module import codes_by_token


class Tutorial(nn.Module):
    """As in tutorials: images, any number of channels is cut into tokens of `e_dim`, five outputs, the loss first."""

    def __init__(self, n_e: int = 64, e_dim: int = 16, beta: float = 0.25) -> None:
        super().__init__()
        self.n_e, self.e_dim, self.beta = n_e, e_dim, beta
        self.embedding = nn.Embedding(n_e, e_dim)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        z = z.permute(0, 2, 3, 1).contiguous()
        codes = torch.cdist(z.view(-1, self.e_dim), self.embedding.weight).argmin(1, keepdim=True)
        onehot = torch.zeros(codes.shape[0], self.n_e).scatter_(1, codes, 1)
        q = (onehot @ self.embedding.weight).view(z.shape)
        loss = F.mse_loss(q, z.detach()) + self.beta * F.mse_loss(z, q.detach())
        use = onehot.mean(0)
        perplexity = (-(use * (use + 1e-10).log()).sum()).exp()
        return loss, (z + (q - z).detach()).permute(0, 3, 1, 2), perplexity, onehot, codes


def test_the_width_of_a_tutorials_quantizer_is_that_of_its_table():
    foreign = infer_interface(Tutorial, "tutorial", {})
    assert (foreign.layout, foreign.dim) == ("BDHW", 16)
    assert [level.book.name for level in levels_of(foreign)] == ["embedding.weight"]
    found = {o.law.id: o.verdict.status for o in judge_all(FOREIGN_LAWS, foreign)}
    assert {found[n] for n in ("codebook-learns", "commitment-reaches-encoder", "straight-through-gain")} == {"kept"}
    assert found["forward-exact"] == "broken"  # x + (q - x) rounds


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (8, 6, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5)], ids=len)
@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
def test_rounding_to_levels_is_met_at_as_many_channels(levels, first):
    foreign = infer_interface(lambda: Levels(levels, first), "levels", {})
    assert (foreign.layout, foreign.dim) == ("BDHW" if first else "BTD", len(levels))
    assert not [o.law.id for o in judge_all(FOREIGN_LAWS, foreign) if o.verdict.status == "broken"]


class Levels(nn.Module):
    """Finite scalar quantization: each channel is rounded to its own number of levels; nothing checks the width."""

    def __init__(self, levels: tuple[int, ...], first: bool) -> None:
        super().__init__()
        self.axes = (-1, 1, 1) if first else (-1,)
        self.axis = 1 if first else -1
        steps = torch.tensor((1, *levels[:-1])).cumprod(0)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("steps", steps, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        levels, steps = self.levels.view(self.axes), self.steps.view(self.axes)
        span = (levels - 1) * (1 - 1e-3) / 2
        half = torch.where(levels % 2 == 1, 0.0, 0.5)
        bounded = (z + (half / span).tan()).tanh() * span - half
        rounded = bounded + (bounded.round() - bounded).detach()
        codes = ((rounded.detach() + levels // 2) * steps).sum(self.axis)
        return rounded / (levels // 2), codes.int()


class Numbers(nn.Module):
    """A table whose width is the last of many numbers, some of which it takes as well."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.heads, self.step = 40, 4, 20
        self.register_buffer("used", torch.ones(40))
        self.table = nn.Parameter(torch.randn(40, 10))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.reshape(-1, 10)
        codes = torch.cdist(flat, self.table).argmin(1)
        return self.table[codes].view(x.shape), codes.view(x.shape[0], -1)


def test_what_only_shows_codes_is_not_settled_for():
    foreign = infer_interface(Numbers, "numbers", {})
    assert (foreign.layout, foreign.dim) == ("BTD", 10)
    asked = infer_interface(Numbers, "numbers", {"dim": 20})
    assert asked.dim == 20  # as was asked for: two codes of 10 features side by side


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8, 16])
def test_levels_come_first_in_the_middle_or_last(levels):
    codes = torch.arange(7 * 36 * levels).view(7, 36, levels)
    wanted = codes.reshape(-1, levels)
    for given in (codes, codes.transpose(1, 2), codes.permute(2, 0, 1)):
        assert torch.equal(codes_by_token(given, 7 * 36, "BTD"), wanted)
