"""The task contract: how parts are wired, one straight training step, and what a trained task can do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from vqtool.api.data import Batch, DataSpec
from vqtool.api.parts import Received

Better = Literal["min", "max"] | None  # of a figure: whether less or more is better, or neither

USE: Mapping[str, Better] = MappingProxyType({"codes.perplexity": None, "codes.used": None})


class Parts(nn.ModuleDict):
    """The built parts by role, as attributes: `parts.encoder`."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Make(Protocol):
    """Builds the part that the recipe names for a role; given to `Task.build`."""

    def __call__(self, role: str, *wiring: Any, optional: bool = False) -> Any:
        """Build `[role]` with positional `wiring`; a part that an earlier stage built is returned as it is.

        With `optional`, a role that the recipe does not name gives None (for `norm`: the identity).
        """
        ...


@dataclass(frozen=True, slots=True)
class Estimates:
    """What evaluation measures. Estimates [B, C, L] are in the signal's own units, by prefix ("" = deployed)."""

    x_hat: Mapping[str, Tensor] = field(default_factory=dict)
    named: Mapping[str, Any] = field(default_factory=dict)  # everything else that metrics may read, e.g. codes


class Task:
    """Keyword-only constructor parameters are a stage's `options`; `knobs` may be set or scheduled as `task.NAME`.

    A stage whose losses read a `[discriminator]` shows it `x_hat` and `target`, so its task must provide both.
    """

    provides: ClassVar[frozenset[str]] = frozenset()  # names that `step` returns, for losses to read
    uses: ClassVar[frozenset[str]] = frozenset()  # every role that `build` may make
    trains: ClassVar[tuple[str, ...]] = ()  # those of them whose parameters this task changes
    knobs: ClassVar[frozenset[str]] = frozenset()
    needs_codes: ClassVar[bool] = False  # while it trains, so that the quantizer cannot be bypassed
    masks: ClassVar[bool] = False  # promise: padding, by a field of role `mask`, reaches none of its outputs
    headline: ClassVar[Mapping[str, Better]] = USE  # the figures of validation rows that people watch, in order

    def build(self, make: Make, spec: DataSpec) -> None:
        """Wire the parts, in plain Python."""
        raise NotImplementedError

    def begin(self, parts: Parts) -> None:
        """Called once, before the first step of the stage: earlier stages are trained and codebooks initialised."""

    def optimizers(self, parts: Parts) -> Mapping[str, Collection[str]]:
        """The roles that each optimizer of the stage moves, by its name: together all that the task trains, once each.

        Each is an AdamW that clips its own gradients. All follow the stage's loss; what losses learn goes with the
        first. The loop itself adds `discriminator` where losses read one: it has a loss and a rate of its own.
        """
        return {"main": self.trains}

    def step(self, parts: Parts, batch: Batch) -> dict[str, Any]:
        """One training step's outputs, named as in `provides`; the loop updates from a `Quantized` at "quantized".

        "figures", a dict of scalars, are logged beside the losses, in training and in validation.
        """
        raise NotImplementedError

    def latents(self, parts: Parts, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What the quantizer reads in a training step [B, T, D], and the mask [B, T] of real tokens or None.

        Codebooks start from it. By default it is what the encoder gives of the normalised batch, under its condition; a
        task that takes masks gives its own.
        """
        normed = parts.norm(batch)[0] if "norm" in parts else batch
        return parts.encoder(normed["x"], *([parts.conditioner(normed)] if "conditioner" in parts else [])), None

    def estimate(self, parts: Parts, batch: Batch) -> Estimates:
        """What the trained parts do on held-out rows, as deployed; metrics read the result."""
        raise NotImplementedError


@runtime_checkable
class Encodes(Protocol):
    """Signals to codes."""

    def encode(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`{"codes": [B, T, Q], "sent": [B, S]}`."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Codes back to signals."""

    def decode(self, parts: Parts, coded: dict[str, Tensor], batch: Batch) -> Tensor:
        """[B, C, L] in the signal's own units; `batch` holds the conditions."""
        ...


@runtime_checkable
class Generates(Protocol):
    """Signals from conditions alone."""

    def generate(self, parts: Parts, batch: Batch, **how: Any) -> Tensor:
        """[B, C, L] in the signal's own units. `how`: beam, temperature, top_k, top_p, seeds."""
        ...


@runtime_checkable
class Forecasts(Protocol):
    """Forecasts what follows a history."""

    def forecast(self, parts: Parts, batch: Batch, steps: int, **how: Any) -> Tensor:
        """Sample paths [B, S, C, steps] in the signal's own units, after the histories `x` [B, C, L] of `batch`.

        `how`: `seeds` (one a row), and `samples` (S) with `temperature`, `top_k` and `top_p` where they are not the
        task's own; or `greedy`, which gives S = 1. Row b depends on its own history and seed alone, and the first k
        steps of a longer forecast are those of a forecast of k steps.
        """
        ...


@runtime_checkable
class QuantileForecaster(Protocol):
    """A forecaster that computes quantiles itself; no sample paths are drawn for them."""

    def quantiles(self, parts: Parts, batch: Batch, steps: int, levels: Sequence[float]) -> Tensor:
        """[B, Q, C, steps] at `levels` [Q], in the signal's own units, after the histories `x` [B, C, L] of `batch`."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A forecaster that knows simpler forecasts to be measured by, and what its own are made of."""

    def compare(self, parts: Parts, batch: Batch, steps: int) -> Mapping[str, Tensor]:
        """Forecasts [B, C, steps] to compare with, by name, in the signal's own units."""
        ...

    def explain(self, parts: Parts, batch: Batch, steps: int) -> tuple[Sequence[str], Tensor]:
        """What the forecasts are weighted means of, N names, and the weights [B, N]."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """Signals to features before and behind the quantizer, for probes."""

    def embed(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """`{"features": [B, T, D], "codes": [B, T, Q]}`; `context` [B, T, D'] where there is a context network."""
        ...


@runtime_checkable
class Classifies(Protocol):
    """Signals to class scores."""

    def classify(self, parts: Parts, batch: Batch) -> Tensor:
        """Logits [B, classes], as deployed."""
        ...


@runtime_checkable
class Transmits(Protocol):
    """Signals are classified after the channel, as it is at a level of its own measure, or its two ends work apart."""

    def transmit(
        self, parts: Parts, batch: Batch, level: float | None, *, soft: bool = False, doubt: float | None = None
    ) -> tuple[Tensor, Received | None]:
        """Logits [B, classes] after the channel at `level`, and what it gave; None where there is no channel.

        The level is of the channel's own measure of quality, None its default. `soft`: by expectations instead of the
        codes that are deployed. `doubt`: entropy of the classes, in bits, above which the next level of codes is sent.
        """
        ...

    def send(self, parts: Parts, batch: Batch) -> dict[str, Tensor]:
        """What the sender puts out, by the channel's own names."""
        ...

    def observe(self, parts: Parts, batch: Batch) -> Sequence[Mapping[str, Tensor]]:
        """What arrives, in each form that `receive` takes: to try it with."""
        ...

    def receive(self, parts: Parts, arrived: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, classes] from what arrived: one of the channel's `arrivals`."""
        ...
