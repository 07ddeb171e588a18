"""The loss contract: a loss says by its parameter names what it reads, like a pytest fixture."""

from __future__ import annotations

import inspect
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from vqtool.api.data import DataSpec
from vqtool.errors import VqtoolError

VERDICTS = frozenset({"fake_logits", "fake_features", "real_features"})  # what losses may read of a `Discriminator`


class Loss(nn.Module):
    """A scalar to be minimised. `forward(self, *, x_hat, current)` reads the task's outputs and the batch by name.

    Built with the `DataSpec` as its one wiring argument; keyword-only parameters are the recipe's options. A loss may
    hold parameters of its own: they are trained with the stage. A name that neither the task nor the data provides
    is an error of the recipe that names both. A parameter with a default is read where somebody provides it.

    Data of different lengths come padded with zeros, with a `mask` [B, L] that is true for what is real. A loss that
    compares such signals names `mask=None` among what it reads and leaves padding out (`vqtool.layers.lengths` helps);
    one that does not is refused for these data.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, *args: Any, **named: Any) -> Tensor:  # a subclass names what it reads, all by keyword
        raise NotImplementedError


@runtime_checkable
class Adversarial(Protocol):
    """A loss with another side, which trains the stage's discriminator.

    `forward` reads `fake_logits` (and, as any loss may, `fake_features` and `real_features`: a list of tensors for each
    scale); its gradient reaches the output, not the discriminator. That of `discriminate` reaches only the latter.
    """

    def discriminate(self, *, real_logits: list[Tensor], fake_logits: list[Tensor]) -> Tensor:
        """A scalar that the discriminator makes small; of each a tensor for each scale."""
        ...


def opposed(kind: type[Loss]) -> bool:
    """Whether a kind of loss reads what a discriminator says."""
    return not VERDICTS.isdisjoint(inspect.signature(kind.forward).parameters)


def reads(function: object) -> tuple[frozenset[str], frozenset[str]]:
    """The names a loss's or metric's function needs, and those it takes where there are any (they have a default).

    Raises:
        VqtoolError: it takes one by place.
    """
    parameters = list(inspect.signature(function).parameters.values())  # type: ignore[arg-type]  # callable by contract
    free = parameters if inspect.ismethod(function) else parameters[1:]
    placed = [p.name for p in free if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    if placed:
        where = getattr(function, "__qualname__", "it")
        raise VqtoolError(
            f"`{where}` takes {', '.join(f'`{n}`' for n in placed)} by place, and names are read by keyword",
            hint=f"def {where.rpartition('.')[2]}(self, *, {', '.join(placed)})",
            exit_code=1,
        )
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    needs = frozenset(p.name for p in named if p.default is p.empty)
    return needs, frozenset(p.name for p in named) - needs
