"""What a channel between quantizer and decoder refuses, and conditions at its receiving end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vqtool.api import DataSpec, Field, Norm, Parts
from vqtool.errors import VqtoolError
from vqtool.parts.tasks.autoencode import Autoencode
from vqtool.quantizers import FSQ

SIGNAL = {"x": Field((1, 30), "signal")}


def built(spec: DataSpec, norm: Any, **parts: Any) -> Autoencode:
    """A task over parts that are only as much as it asks them for."""
    encoder, quantizer = SimpleNamespace(dim=2, stride=4), SimpleNamespace(codebook_sizes=(8,))
    there = {"norm": norm, "encoder": encoder, "quantizer": quantizer, "channel": SimpleNamespace(), **parts}
    task = Autoencode()
    task.build(lambda role, *wiring, optional=False: there.get(role), spec)
    return task


@pytest.mark.parametrize(("spec", "sends", "message"), [
    ({**SIGNAL, "mask": Field((30,), "mask")}, (), "rows of different lengths: their `mask`"),
    (SIGNAL, ("gain",), r"side information: `gain` of \[norm\]"),
])  # fmt: skip
def test_what_has_no_way_through_is_refused(spec: dict[str, Field], sends: tuple[str, ...], message: str) -> None:
    norm = SimpleNamespace(sends=sends)
    with pytest.raises(VqtoolError, match=message):
        built(DataSpec(spec), norm)
    built(DataSpec(spec), norm, channel=None)
    assert built(DataSpec(SIGNAL), SimpleNamespace(sends=())).tokens == 8  # the last one is filled up


def test_the_receiving_end_takes_the_condition_beside_what_arrived() -> None:
    spec = DataSpec({"x": Field((1, 8), "signal"), "load": Field((1,), "scalar")})

    class Scaled(Norm):
        """A norm that reads a condition."""

        def invert(self, x: torch.Tensor, batch: dict[str, torch.Tensor], sent: torch.Tensor) -> torch.Tensor:
            return x * batch["load"][:, None]

    class Channel:
        def receive(self, arrived: dict[str, torch.Tensor], tables: Any, tokens: int) -> torch.Tensor:
            assert list(arrived) == ["heard"]
            return arrived["heard"]

    parts = Parts()
    object.__setattr__(parts, "norm", Scaled(spec))
    object.__setattr__(parts, "encoder", SimpleNamespace(dim=2, stride=2))
    object.__setattr__(parts, "channel", Channel())
    object.__setattr__(parts, "quantizer", FSQ(2, levels=(4, 2)))
    object.__setattr__(parts, "decoder", lambda z, condition: z.flatten(1)[:, None])
    task = Autoencode()
    task.tokens = 4
    heard = torch.randn(3, 4, 2)
    got = task.receive(parts, {"heard": heard, "load": torch.full((3, 1), 2.0)})
    torch.testing.assert_close(got, 2 * heard.flatten(1)[:, None])
    with pytest.raises(KeyError, match="load"):  # one error in `Model.receive`
        task.receive(parts, {"heard": heard})
