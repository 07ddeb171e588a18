"""The laws of a foreign module's codes: they decode to what flowed on, and they name rows of its codebook."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.conformance.foreign_modules import PlainVQ
from vqtool.conformance import FOREIGN_LAWS, Verdict, infer_interface, judge

LAWS = {law.id: law for law in FOREIGN_LAWS}


class Decodes(PlainVQ):
    """Its codes [B, T] decode to vectors [B, T, D]."""

    def decode(self, codes: Tensor) -> Tensor:
        return self.embed[codes.view(codes.shape[0], -1)]


class DecodesFlat(PlainVQ):
    """It looks vectors up by codes [B, T] alone, and gives them channel-first."""

    def lookup(self, codes: Tensor) -> Tensor:
        batch, length = codes.shape
        return self.embed[codes].view(batch, length, -1).transpose(1, 2)


class DecodesOtherRows(PlainVQ):
    """Off by one row."""

    def get_codebook_entry(self, codes: Tensor) -> Tensor:
        return self.embed[(codes.view(codes.shape[0], -1) + 1) % len(self.embed)]


class DecodesNothing(PlainVQ):
    """It refuses every arrangement of codes."""

    def decode(self, codes: Tensor) -> Tensor:
        raise RuntimeError("not written yet")


class CountsFromOne(PlainVQ):
    """Its codes are one more than the rows that they stand for."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, codes, commitment = super().forward(x)
        return value, codes if self.training else codes - 1, commitment


class Blends(PlainVQ):
    """In training the input is mixed into what flows on."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, codes, commitment = super().forward(x)
        return (value + x) / 2 if self.training else value, codes, commitment


def verdict(make: Callable[[int], nn.Module], law: str) -> Verdict:
    """What one law says of a module."""
    return judge(LAWS[law], infer_interface(lambda: make(8), "foreign", {"dim": 8})).verdict


@pytest.mark.parametrize(
    ("make", "status"),
    [(Decodes, "kept"), (DecodesFlat, "kept"), (DecodesOtherRows, "broken"), (DecodesNothing, "n/a"), (PlainVQ, "n/a")],
)
def test_codes_decode_to_what_flowed_on(make: Callable[[int], nn.Module], status: str) -> None:
    found = verdict(make, "decode-round-trip")
    assert found.status == status
    assert ("no method was found" in found.note) == (status == "n/a")


def test_a_code_below_zero_is_counted() -> None:
    found = verdict(CountsFromOne, "codes-are-codes")
    assert found.status == "broken"
    assert found.figure is not None
    assert found.figure > 0
    assert verdict(PlainVQ, "codes-are-codes").status == "kept"


def test_a_module_that_lets_more_through_than_its_codes_is_not_held_to_them() -> None:
    assert verdict(Blends, "forward-exact").status == "n/a"
    assert verdict(PlainVQ, "forward-exact").status == "kept"


def test_without_a_gradient_the_gain_is_zero_and_no_bound_is_asked_for() -> None:
    class Detached(PlainVQ):
        def let_through(self, x: Tensor, q: Tensor) -> Tensor:
            return q.detach()

        def commitment(self, x: Tensor, q: Tensor) -> Tensor:
            return torch.zeros(())

    assert verdict(Detached, "straight-through-gain") == Verdict(
        "broken", 0.0, "no gradient reaches the input", "fatal"
    )
    assert verdict(Detached, "gradient-bounded").status == "n/a"
