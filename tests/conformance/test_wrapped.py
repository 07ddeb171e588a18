"""Modules that hold one of our quantizers: judged as `vqtool.attach` would train them, and their own faults named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import vqtool
from vqtool.api import CodebookStats
from vqtool.catalog import catalog
from vqtool.quantizers import LFQ, VQ, Residual

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # many codes start from few tokens


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Wrapped(nn.Module):
    """Nothing but one of ours inside."""

    def __init__(self, vq: nn.Module | None = None) -> None:
        super().__init__()
        self.vq = vq if vq is not None else VQ(16, "BTD", codebook_size=32)

    def forward(self, x: Tensor) -> object:
        return self.vq(x)


class Detached(Wrapped):
    def forward(self, x: Tensor) -> object:
        found = self.vq(x)
        return found.z.detach(), found.codes, found.loss


class AgainstItsLoss(Wrapped):
    def forward(self, x: Tensor) -> object:
        found = self.vq(x)
        return found.z, found.codes, -found.loss


class UpdatesInEvaluation(Wrapped):
    def forward(self, x: Tensor) -> object:
        found = self.vq(x)
        self.vq.train()
        self.vq.update(self.vq(x).stats)
        self.vq.train(self.training)
        return found


class StartsInEvaluation(Wrapped):
    def forward(self, x: Tensor) -> object:
        if not self.vq.initialised:
            self.vq.train()
            self.vq(x)
            self.vq.train(self.training)
        return self.vq(x)


class UpdatesInForward(Wrapped):
    def forward(self, x: Tensor) -> object:
        found = self.vq(x)
        if self.training:
            self.vq.update(found.stats)
        return found


class Reshaped(Wrapped):
    """Takes [B, D, T] and cuts it up wrongly."""

    def forward(self, x: Tensor) -> object:
        found = self.vq(x.reshape(len(x), -1, 16))
        return found.z.reshape(x.shape), found.codes


class Rests(VQ):
    def update(self, stats: tuple[CodebookStats, ...]) -> None:
        """Move nothing."""


class Flees(VQ):
    def update(self, stats: tuple[CodebookStats, ...]) -> None:
        super().update(tuple(replace(one, sums=-one.sums) for one in stats))


def broken(module: nn.Module, **how: object) -> dict[str, str | None]:
    report = vqtool.verify(module, **how)  # type: ignore[arg-type]  # options by name
    return {one.law.id: one.grade for one in report if one.verdict.status == "broken"}


@pytest.mark.parametrize(
    "make",
    [
        Wrapped,
        lambda: VQ(16, "BCL", codebook_size=32),
        lambda: Wrapped(VQ(16, "BTD", codebook_size=32, codes="learned")),
        lambda: Wrapped(Residual(16, "BTD", levels=2)),
    ],
    ids=["vq", "vq itself", "learned", "residual"],
)
def test_one_of_ours_inside_keeps_every_law(make: Callable[[], nn.Module]) -> None:
    assert broken(make()) == {}


def test_the_report_says_how_its_codebooks_were_moved() -> None:
    (learns,) = vqtool.verify(Wrapped(), laws=["codebook-learns"])
    assert learns.verdict.status == "kept"
    assert "updated as by vqtool.attach" in learns.verdict.note
    (learns,) = vqtool.verify(Wrapped(), laws=["codebook-learns"], update=lambda module: None)  # theirs does nothing
    assert (learns.verdict.status, learns.grade) == ("broken", "fatal")


@pytest.mark.parametrize(
    ("module", "law", "grade"),
    [
        (Detached, "straight-through-gain", "fatal"),
        (AgainstItsLoss, "commitment-reaches-encoder", "fatal"),
        (UpdatesInEvaluation, "eval-changes-nothing", "harmful"),
        (StartsInEvaluation, "eval-changes-nothing", "cosmetic"),
        (UpdatesInForward, "checkpointing", "cosmetic"),
        (lambda: Wrapped(Rests(16, "BTD", codebook_size=32)), "codebook-learns", "fatal"),
        (lambda: Wrapped(Flees(16, "BTD", codebook_size=32)), "ema-follows-inputs", "fatal"),
    ],
)
def test_a_fault_around_or_in_one_of_ours_is_named(module: Callable[[], nn.Module], law: str, grade: str) -> None:
    assert broken(module(), laws=[law]) == {law: grade}


def test_axes_that_are_mixed_up_are_the_one_fault() -> None:
    """A codebook that was never started is no reason to break the laws that look for it."""
    assert broken(Reshaped(), layout="BDT") == {"token-permutation": "fatal"}


def test_a_module_that_updates_itself_is_not_updated_twice() -> None:
    """Its codes go as far in a step as those that `attach` moves."""
    moved = []
    for module in (Wrapped(), UpdatesInForward()):
        (follows,) = vqtool.verify(module, laws=["ema-follows-inputs"])
        moved.append(follows.verdict.figure)
    assert moved[0] == pytest.approx(moved[1], rel=0.2)


def test_an_instance_that_was_trained_stays_as_it_is_and_keeps_every_law() -> None:
    module = Wrapped()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    attached = vqtool.attach(optimizer, module)
    for _ in range(3):
        module(torch.randn(8, 16, 16))
        optimizer.step()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert broken(module) == {}
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    attached.detach()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dim", [4, 6, 12])
def test_a_value_behind_untrained_maps_is_no_aim_of_the_commitment(dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    found = vqtool.verify(LFQ(dim), laws=["commitment-reaches-encoder"])
    assert [one.verdict.status for one in found] == ["kept"]


@pytest.mark.parametrize("kind", ["mixture-ema", "residual-waterfill"])
@pytest.mark.parametrize("dim", [6, 16])
def test_windows_that_choose_together_and_losses_of_another_aim_are_no_fault(kind: str, dim: int) -> None:
    """An expert that no token takes has no share in the commitment; the loss of a rate pulls beside it."""
    torch.manual_seed(0)
    quantizer = catalog().load("quantizer", kind)(dim)
    assert broken(quantizer, laws=["commitment-reaches-encoder", "token-permutation"]) == {}
