"""The toy plugin's classes: options of many types, no mathematics."""

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval, MinLen
from torch import Tensor

from vqtool.api import Baseline, Data, DataSpec, Decoder, Encoder, Loss, Metric, Quantizer, Schedule, Task


class Waves(Data):
    """Nothing but a path."""

    def __init__(
        self, *, path: Annotated[Path, Doc("a file")], share: Annotated[float, Interval(gt=0, lt=1), Doc("s")] = 0.5
    ):
        self.path = path
        self.share = share


class Thin(Encoder):
    """An encoder with a list and a choice."""

    def __init__(
        self,
        channels: int,
        *,
        strides: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1), Doc("downsampling")] = (4, 2),
        padding: Annotated[Literal["zeros", "circular"], Doc("at the ends")] = "zeros",
        limit: Annotated[float | None, Ge(0), Doc("largest value, if any")] = None,
        pair: Annotated[tuple[float, float], Doc("two numbers")] = (0.0, 1.0),
        copy: Annotated[bool, Doc("a name that pydantic uses itself")] = False,
    ):
        super().__init__()
        self.channels, self.strides, self.padding, self.limit, self.pair = channels, strides, padding, limit, pair


class Round(Quantizer):
    """A quantizer with a term and knobs, one of which is also an option."""

    terms = frozenset({"commitment"})
    knobs = frozenset({"temperature", "hard"})

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: Annotated[int, Gt(1), Doc("codes")] = 8,
        temperature: Annotated[float, Gt(0), Doc("softness")] = 1.0,
    ):
        super().__init__()
        if codebook_size == 13:
            raise ValueError("thirteen codes bring bad luck")
        self.dim, self.codebook_sizes, self.temperature = dim, (codebook_size,), temperature


class Other(Quantizer):
    """A quantizer whose term is called as a loss is: a clash."""

    terms = frozenset({"toy"})


class Thick(Decoder):
    """A decoder without options."""


class Squeeze(Task):
    """A task with a knob and an option."""

    uses = frozenset({"encoder", "quantizer", "decoder"})
    trains = ("encoder", "quantizer", "decoder")
    knobs = frozenset({"own_tokens"})

    def __init__(self, *, mask: Annotated[float, Interval(ge=0, le=1), Doc("share hidden")] = 0.0):
        self.mask = mask


class Gap(Loss):
    """A loss with an option that TOML calls `from`."""

    def __init__(self, spec: DataSpec, *, from_: Annotated[int, Doc("first sample")] = 0):
        super().__init__(spec)
        self.from_ = from_

    def forward(self, *, x_hat: Tensor, x: Tensor) -> Tensor:
        return (x_hat - x)[..., self.from_ :].square().mean()


class Ramp(Schedule):
    """A schedule with a required option."""

    def __init__(self, *, from_: Annotated[float, Doc("at first")], to: Annotated[float, Doc("at last")] = 1.0):
        self.from_, self.to = from_, to

    def __call__(self, progress: float, epoch: int, step: int) -> float:
        return self.from_ + progress * (self.to - self.from_)


class Count(Metric):
    """A metric."""

    def update(self, **named: Any) -> None:
        """Nothing."""


class Zero(Baseline):
    """A baseline."""
