"""Where codes come out of modules of any library: in what they return, in whatever form they return it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.api.quantizer import Quantized

CODES = re.compile(r"ind(ex|ices|s)?(_|$)|code|token|ids$", re.IGNORECASE)  # what results that hold codes are called


@dataclasses.dataclass(eq=False)
class Outlet:
    """A place where codes may come out: what a module returns, or one of its methods, or what an embedding is given."""

    path: str
    module: nn.Module
    method: str  # "forward", "encode", ...; "input" of an nn.Embedding; "scores" of a projection onto codes
    books: tuple[int, ...]  # the numbers of the codebooks whose codes come out here, in the order of their columns
    sizes: tuple[int, ...]
    first_axis: bool = False  # whether several codebooks come along the first axis rather than the last
    near: bool = True  # whether it is a quantizer itself, and no module around one
    one_hot: bool | None = None  # whether codes come as rows with a single 1; found out once

    def codes(self, arguments: Sequence[Any], result: Any) -> list[Tensor] | None:
        """The codes of each of `books`, of any shapes; None where there are none to be seen."""
        if isinstance(result, Quantized):
            return list(result.codes.unbind(-1))
        if self.method == "input":
            return [arguments[0]] if arguments and is_whole(arguments[0]) else None
        if self.method == "scores":
            return list(result.unflatten(-1, (len(self.books), -1)).argmax(-1).unbind(-1))
        found = list(values_in(result))
        if not any(is_whole(value) for _, value in found):
            found += [(n, v) for n, v in vars(self.module).items() if isinstance(v, Tensor) and CODES.search(n)]
        whole = sorted((item for item in found if is_whole(item[1])), key=lambda item: not CODES.search(item[0]))
        return self._columns(whole) or self._of_one_hot([value for _, value in found])

    def _columns(self, found: list[tuple[str, Tensor]]) -> list[Tensor] | None:
        """One tensor for each codebook: the first of what was found that can be meant."""
        count = len(self.books)
        if count == 1:
            return [value for _, value in found if not self._is_one_hot(value)][:1] or None
        for name, value in found:
            together = [other for other_name, other in found if other_name == name]
            if len(together) == count:
                return together
            axes = (0, -1, 1) if self.first_axis else (-1, 1, 0)
            axis = next((a for a in axes if value.ndim >= 2 and value.shape[a] == count), None)
            if axis is not None:
                return list(value.unbind(axis))
        return None

    def _of_one_hot(self, tensors: list[Tensor]) -> list[Tensor] | None:
        found = [t.argmax(-1) for t in tensors if self._is_one_hot(t)]
        return found[:1] if found and len(self.books) == 1 else None

    def _is_one_hot(self, tensor: Tensor) -> bool:
        """Whether rows [N, K] have a single 1: looked at once, since that waits for the device."""
        if tensor.ndim < 2 or tensor.shape[-1] != self.sizes[0]:
            return False
        if self.one_hot is None:
            rows = tensor.detach()
            self.one_hot = bool((((rows == 0) | (rows == 1)).all(-1) & (rows.sum(-1) == 1)).all())
        return self.one_hot


def is_whole(value: Any) -> bool:
    """Whether it is a tensor of whole numbers, as codes are."""
    fits = isinstance(value, Tensor) and value.ndim > 0 and value.dtype != torch.bool
    return fits and not (value.is_floating_point() or value.is_complex())


def values_in(result: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a result with their names: in tuples, tables, dataclasses and other objects with attributes."""
    if isinstance(result, Tensor):
        yield name, result
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(result, Mapping):
        items = result.items()
    elif isinstance(result, list | tuple):
        items = zip(getattr(result, "_fields", (name,) * len(result)), result, strict=True)
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        items = ((f.name, getattr(result, f.name)) for f in dataclasses.fields(result))
    elif hasattr(result, "__dict__") and not isinstance(result, nn.Module | type):
        items = vars(result).items()
    for key, value in items:
        yield from values_in(value, str(key))
