"""Counting codes where they come out of modules, by hooks: on the device, with nothing copied to the host."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.foreign.outlets import Outlet, values_in


@dataclass
class Gate:
    """Whether passes are counted now."""

    open: bool = True


class Counter:
    """How often each code of some codebooks was chosen: for each a row of K + 2 counts.

    The first is of codes below 0, which are none (masked tokens, dropped levels), the last of codes that there are not.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.counts: list[Tensor] = []
        self.errors: Tensor | None = None  # [3]: sums of the inputs' variance and of their squared error, and how many
        self.per_pass = 0  # tokens of the last pass
        self.trained = False  # whether a gradient reaches the inputs

    def add(self, codes: Sequence[Tensor]) -> None:
        """Count codes of any shape, one tensor for each codebook."""
        if not self.counts:
            self.counts = [torch.zeros(k + 2, dtype=torch.int64, device=codes[0].device) for k in self.sizes]
        for counts, size, one in zip(self.counts, self.sizes, codes, strict=True):
            places = (one.detach().reshape(-1).long() + 1).clamp_(0, size + 1)
            counts.scatter_add_(0, places, counts.new_ones(1).expand(len(places)))
        self.per_pass = codes[0].numel()

    def compare(self, inputs: Tensor, outputs: Tensor) -> None:
        """Add the error of quantizing `inputs`, of any shape with windows or tokens first, as `outputs`."""
        self.trained = self.trained or inputs.requires_grad
        z = inputs.detach().float()
        mean = z.mean(0) if len(z) > 1 else z.mean()
        spread = (z.square().mean() - mean.square().mean()).clamp_min(0)
        sums = torch.stack([spread, (outputs.detach().float() - z).square().mean(), z.new_ones(())])
        self.errors = sums if self.errors is None else self.errors + sums

    def clear(self) -> None:
        """Begin again."""
        self.errors = None
        for counts in self.counts:
            counts.zero_()


class Tap:
    """Counts what comes out of an outlet, while the gate is open; `close` takes the hook away.

    Passes in evaluation mode are not counted, nor the second pass of activation checkpointing, which is in backward.
    A copy of the module, or a module loaded from a pickle, has no such hook.
    """

    def __init__(self, outlet: Outlet, gate: Gate) -> None:
        self.outlet, self.gate, self.counter = outlet, gate, Counter(outlet.sizes)
        self.called = self.evaluated = False  # whether a pass went through: in training, in evaluation
        module, self._method = outlet.module, None
        if outlet.method in ("forward", "input", "scores"):
            self._handle = module.register_forward_hook(Hook(self), with_kwargs=True)
        else:
            self._method = Method(self, getattr(module, outlet.method))
            vars(module)[outlet.method] = self._method

    def close(self) -> None:
        """Leave the module as it was."""
        if self._method is None:
            self._handle.remove()
        elif vars(self.outlet.module).get(self.outlet.method) is self._method:
            del vars(self.outlet.module)[self.outlet.method]

    @torch.compiler.disable
    def see(self, arguments: Sequence[Any], result: Any) -> None:
        """Count a pass, where it is to be counted."""
        if not self.gate.open or torch._C._current_graph_task_id() != -1:
            return
        if self.outlet.module.training:
            self.called = True
            self._count(arguments, result)
        else:
            self.evaluated = True

    @torch.no_grad()
    def _count(self, arguments: Sequence[Any], result: Any) -> None:
        codes = self.outlet.codes(arguments, result)
        if codes is None:
            return
        self.counter.add(codes)
        inputs = next((a for a in arguments if isinstance(a, Tensor) and a.is_floating_point()), None)
        if inputs is not None:
            self.counter.trained = self.counter.trained or inputs.requires_grad
            output = next((t for _, t in values_in(result) if t.shape == inputs.shape and t.is_floating_point()), None)
            if output is not None and output is not inputs:
                self.counter.compare(inputs, output)


class Hook:
    """A tap as a forward hook; a copy of it does nothing."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __call__(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        self.tap.see((*arguments, *named.values()), result)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (_nothing,)


class Method:
    """A tap around a method of one module; a copy of it is the copied module's own method."""

    def __init__(self, tap: Tap, method: Any) -> None:
        self.tap, self.method = tap, method

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        result = self.method(*arguments, **named)
        self.tap.see((*arguments, *named.values()), result)
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.tap.outlet.module, self.tap.outlet.method)


def _nothing(*_: Any, **__: Any) -> None:
    return None
