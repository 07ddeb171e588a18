"""A limit for building parts from a file: they may ask for about as much memory as the file holds, no more."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vqtool.errors import VqtoolError
from vqtool.forms import damaged
from vqtool.model.format import Header

CALLS, CALLS_EACH = 5_000, 50  # of torch's functions: at least, and for each tensor of the file; parts make 5 to 20
NUMBERS, NUMBERS_EACH = 2**24, 32  # made on the way: at least (64 MB), and for each number of the file; parts make 3
SIZED = {"empty", "zeros", "ones", "full", "rand", "randn", "randint", "new_empty", "new_zeros", "new_ones", "new_full"}
COUNTED = {"arange", "linspace", "logspace", "randperm", "hann_window", "hamming_window", "blackman_window"}
REPEATED = {"repeat", "tile", "repeat_interleave"}


class Bounded(TorchFunctionMode):
    """Inside, torch's functions may be called so many times and make so many numbers; before they are made, if it can.

    The alternative, building on the meta device first, loads a second of torch's compiler and fails where a part looks
    at its values.
    """

    def __init__(self, calls: int, numbers: int) -> None:
        super().__init__()
        self.calls, self.numbers = calls, numbers

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count a call."""
        kwargs = kwargs or {}
        wanted = size_asked(getattr(func, "__name__", ""), args, kwargs)
        self.spend(wanted)
        result = func(*args, **kwargs)
        if not wanted and isinstance(result, torch.Tensor):
            self.numbers -= result.numel()
        return result

    def spend(self, numbers: int) -> None:
        """Take a call and what it makes off the limits."""
        self.calls -= 1
        self.numbers -= numbers
        if self.calls < 0 or self.numbers < 0:
            raise VqtoolError("its options ask for far more memory than the file holds")


def size_asked(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """How many numbers a function of torch is asked to make; 0 where its name does not say."""
    if name in SIZED:
        shapes = [one for one in (*args, kwargs.get("size")) if isinstance(one, tuple | list)]
        return math.prod(map(int, shapes[0])) if shapes else math.prod(whole(args))
    if name == "eye":
        sizes = whole((*args, kwargs.get("m")))
        return sizes[0] * sizes[-1] if sizes else 0
    if name in COUNTED:
        return max((abs(n) for n in whole(args)), default=0)
    if name in REPEATED and args and isinstance(args[0], torch.Tensor):
        flat = [n for one in args[1:] for n in (one if isinstance(one, tuple | list) else [one])]
        return args[0].numel() * math.prod(whole(flat))
    return 0


def whole(values: Sequence[Any]) -> list[int]:
    """The whole numbers among some values."""
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]


@contextlib.contextmanager
def rebuilding(path: Path | str, header: Header) -> Iterator[None]:
    """While parts are built as a file says: within its means, and whatever goes wrong is an error about the file."""
    tensors = len(header.tensors) + len(header.aliases)
    try:
        with Bounded(CALLS + CALLS_EACH * tensors, NUMBERS + NUMBERS_EACH * header.numbers):
            yield
    except VqtoolError as error:
        raise VqtoolError(f"the parts of `{path}` cannot be built: {error.message}",
                          hint=error.hint or "take an intact copy of the file", exit_code=1) from error  # fmt: skip
    except Exception as error:  # a part may raise anything where its options or the data's shapes make no sense
        lines = str(error).strip().splitlines() or [""]
        raise damaged(path, f"its parts cannot be built: {type(error).__name__}: {lines[0][:200]}") from error
