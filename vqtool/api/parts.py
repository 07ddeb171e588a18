"""The contracts of the parts between data and loss. B windows, C channels, L samples, T tokens, D features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqtool.api.data import Batch, DataSpec, Rows
from vqtool.api.precision import in_float32
from vqtool.api.quantizer import Quantized
from vqtool.api.spec import MASK
from vqtool.errors import VqtoolError


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known about a window besides its signal."""

    vector: Tensor  # [B, M]     a summary: metadata and the pooled waves
    tokens: Tensor | None = None  # [B, S, M]  the condition's waves in full, as S positions


class Norm(nn.Module):
    """Normalises a batch for the other parts, and turns their signals back into the original units.

    It may read the condition, never the future. What a decoder needs and cannot know from the condition (a gain, for
    example) is *side information*: `sends` scalars per window, stored beside the codes and counted in bits.
    The base class changes nothing; it is used where a recipe has no `[norm]`. Norms compute in float32, whatever
    precision the networks have.
    """

    sends: tuple[str, ...] = ()
    max_horizon: int | None = None  # the most steps that `future_stats` predicts; None: any number

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        for name in ("condition", "forward", "invert", "future_stats"):
            if name in vars(cls):
                setattr(cls, name, in_float32(vars(cls)[name]))

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    def fit(self, rows: Rows) -> None:
        """Take constants (as buffers) from the training rows; called once, before anything is trained."""

    def condition(self, batch: Batch) -> Batch:
        """The batch with its condition fields normalised; reads the condition only."""
        return batch

    def forward(self, batch: Batch) -> tuple[Batch, Tensor]:
        """(the batch with `x` and the condition normalised, the side information [B, len(sends)])."""
        return batch, batch["x"].new_zeros(batch["x"].shape[0], 0)

    def invert(self, x: Tensor, batch: Batch, sent: Tensor) -> Tensor:
        """The normalised `x` [B, C, L] in the units of the original `batch`, of which only the condition is read."""
        return x

    def future_stats(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """What the history predicts of the next `steps` samples: their centre and scale [B, C, steps].

        A future is normalised to (future - centre) / scale. `max_horizon` is the most steps that can be asked for.
        """
        x = batch["x"]
        return x.new_zeros(*x.shape[:-1], steps), x.new_ones(*x.shape[:-1], steps)

    def append(self, batch: Batch, values: Tensor) -> Batch:
        """The batch as it is once `values` [B, C, n] have followed its history, which keeps its length."""
        length = batch["x"].shape[-1]
        moved = {**batch, "x": torch.cat([batch["x"], values], dim=-1)[..., -length:]}
        if MASK in batch:
            real = batch[MASK].new_ones(len(values), values.shape[-1])
            moved[MASK] = torch.cat([batch[MASK], real], dim=-1)[..., -length:]
        return moved


class Conditioner(nn.Module):
    """Turns the condition fields of a batch (those with role wave, scalar and category) into a `Condition`."""

    dim: int  # M, the width of `vector` and `tokens`

    def fit(self, rows: Rows) -> None:
        """Take standardisation constants (as buffers) from the training rows."""

    def forward(self, batch: Batch) -> Condition:
        raise NotImplementedError


class Encoder(nn.Module):
    """[B, C, L] -> [B, T, D]. Wiring: `(channels, length, condition_dim)`; `condition_dim` 0 means none is given.

    For images [B, C, H, W] the `length` is (H, W).
    """

    dim: int  # D
    stride: int  # samples per token
    bands: int = 1  # how many tokens in a row stand for the same moment

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        raise NotImplementedError

    def streaming(self) -> nn.Module:
        """A copy that takes a signal in pieces of whole tokens, and remembers what it needs of those before.

        Raises:
            VqtoolError: a token depends on samples after its own, or on all before.
        """
        raise not_streaming("encoder", self)


class Decoder(nn.Module):
    """[B, T, D] -> [B, C, L]. Wiring: `(dim, channels, length, stride, condition_dim)`."""

    def check_encoder(self, encoder: Encoder) -> None:
        """Called once, when both are built.

        Raises:
            VqtoolError: an option has to be as the encoder's, and is not.
        """

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        raise NotImplementedError

    def streaming(self) -> nn.Module:
        """A copy that takes tokens in pieces, all of a moment at a time, and remembers what it needs of those before.

        Raises:
            VqtoolError: a sample depends on tokens after its own, or on all before.
        """
        raise not_streaming("decoder", self)


def not_streaming(role: str, part: nn.Module, why: str = "it has no causal form") -> VqtoolError:
    """The error of an encoder or decoder that cannot follow a signal as it comes."""
    return VqtoolError(f"this model cannot stream, because of its {role} `{type(part).__name__}`: {why}",
                       hint="recipes/codec-conv.toml is a causal model")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Received:
    """The output of a channel. B windows, T tokens, D features, Q codebooks."""

    z: Tensor  # [B, T, D]  the input of the next part; its gradient reaches the quantizer
    hard: Tensor  # [B, T, D]  the vectors of the codes: the deployed path
    codes: Tensor  # [B, T, Q]  the likeliest codes behind the channel
    soft: Tensor | None = None  # [B, T, D]  the vectors expected under the quantizer's distribution
    stages: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # (soft, hard) at points in between
    figures: Mapping[str, Tensor] = field(default_factory=dict)  # [B] each, whatever the channel reports
    trace: Mapping[str, Tensor] = field(default_factory=dict)  # [B, ...] each, what was sent and what arrived, deployed


class Channel(nn.Module):
    """A part between quantizer and decoder or classifier that may alter the codes. Wiring: `(codebook_sizes,)`.

    Hard and soft path of one call get the same noise. The unit of `level`, how good the channel is, is its own.

    A channel whose two ends can be used apart overrides `send`, `observe` and `receive`, and names in `arrivals` each
    set of tensors that `receive` can do with.
    """

    knobs: ClassVar[frozenset[str]] = frozenset()
    arrivals: tuple[tuple[str, ...], ...] = ()

    def prepare(self, tables: Sequence[Tensor]) -> None:
        """Once, before the first step of the first stage: the codes' vectors `tables`, Q of [K_q, D], as they start."""

    def levels(self) -> Mapping[str, float]:
        """The levels to evaluate at, by the suffix of a metric's name; "" is the default."""
        return {}

    def draw(self, quantized: Quantized) -> tuple[Tensor, ...]:
        """The noise of one call, from torch's generator; it may be used for several levels."""
        raise NotImplementedError

    def forward(
        self,
        quantized: Quantized,
        tables: Sequence[Tensor],
        *,
        level: float | None = None,
        noise: tuple[Tensor, ...] | None = None,
    ) -> Received:
        """Pass `quantized` through; `tables` are the codes' vectors, Q of [K_q, D], known on both sides.

        Without a `level`, training draws one for each row and evaluation uses the default; without `noise` it is
        drawn.
        """
        raise NotImplementedError

    def rounds(
        self, quantized: Quantized, tables: Sequence[Tensor], level: float | None, noise: tuple[Tensor, ...] | None
    ) -> Iterator[Received]:
        """What has arrived after one level of the quantizer, after two, ..., where each is sent on top of those before.

        `level` and `noise` are as in `forward`; all levels meet the same.

        Raises:
            VqtoolError: the channel sends all levels at once.
        """
        raise VqtoolError(f"the channel `{type(self).__name__}` sends all levels of a quantizer at once",
                          hint="leave `doubt` out")  # fmt: skip

    def send(self, quantized: Quantized) -> dict[str, Tensor]:
        """What the sender puts out for the codes, by name, [B, ...] each; real numbers only."""
        raise NotImplementedError

    def observe(self, quantized: Quantized, tables: Sequence[Tensor]) -> Sequence[Mapping[str, Tensor]]:
        """What arrives of the codes at the default level, in each form of `arrivals`: to try `receive` with."""
        raise NotImplementedError

    def receive(self, arrived: Mapping[str, Tensor], tables: Sequence[Tensor], tokens: int) -> Tensor:
        """The vectors [B, T, D] of T = `tokens` tokens from what arrived: one of the sets in `arrivals`.

        Raises:
            VqtoolError: it is none of these sets, or of another size than T tokens take.
        """
        raise NotImplementedError


class Prior(nn.Module):
    """A distribution over codes [B, T, Q], generated one after the other in the order (t=0,q=0), (t=0,q=1), ...

    Wiring: `(codebook_sizes, length, condition_dim, vectors)`: Q sizes, T tokens, the width of the condition
    (0: none) and the quantizer's `vectors()` or None. Logits of a position read only codes before it; the condition is
    read in full. N = T * Q is the length of the flat sequence.
    """

    codebook_sizes: tuple[int, ...]
    length: int

    def forward(self, codes: Tensor, condition: Condition | None = None, *, fed: Tensor | None = None) -> Tensor:
        """Logits [B, T, Q, Kmax] for `codes` [B, T, Q] (-inf beyond a codebook's size).

        `fed`, where given, are the codes read as the past instead of `codes` (scheduled sampling).
        """
        return self.outputs(codes, condition, fed=fed)[0]

    def outputs(
        self, codes: Tensor, condition: Condition | None = None, *, fed: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`forward`'s logits, and the latents [B, T, Q, D] they were read from (None where `vectors` is None)."""
        raise NotImplementedError

    def targets(self, codes: Tensor, fed: Tensor, latent: Tensor | None = None) -> Tensor:
        """The target codes [B, T, Q] after the past `fed`, where `codes` are the true ones; `latent` is [B, T, D]."""
        return codes

    def copy_vectors(self, vectors: Sequence[Tensor]) -> None:
        """Take the codes' vectors from the now trained quantizer; called once, before the prior is trained."""

    def latents(self, condition: Condition | None) -> Tensor | None:
        """The latents [B, T, D] predicted from the condition alone, before any code; None without such a prediction."""
        return None

    def own(self, codes: Tensor, condition: Condition | None, share: float, *, draw: Tensor) -> Tensor:
        """The past for scheduled sampling: `codes` with a token replaced by the model's own where `draw` < `share`.

        `draw` [B, T, Q] is uniform in [0, 1). No gradient flows. A share of 0 returns `codes` unchanged.
        """
        raise NotImplementedError

    def sample(
        self,
        batch: int,
        condition: Condition | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seeds: Sequence[int] | None = None,
        prefix: Tensor | None = None,
        paths: int = 1,
        tokens: int | None = None,
    ) -> Tensor:
        """Generate codes [B * paths, T, Q], row after row and of each row path after path; temperature 0 is greedy.

        Every path draws from its own generator, seeded by its place in `seeds`, so that it does not depend on the rest
        of the batch. `prefix` [B, T', Q] fixes the first T' tokens; it is read once for all paths of a row. With
        `tokens` generation stops after so many; they equal the first tokens of a longer generation.
        """
        raise NotImplementedError

    def beam(self, batch: int, condition: Condition | None = None, *, width: int = 8) -> tuple[Tensor, Tensor]:
        """Beam search: the best codes [B, T, Q] and their log-probabilities [B]; never worse than greedy."""
        raise NotImplementedError


class Regressor(nn.Module):
    """Predicts the norm's side information. Wiring: `(condition_dim, latent_dim, outputs)`."""

    def forward(self, condition: Condition, z: Tensor) -> Tensor:
        """[B, outputs] from the condition and the latents `z` [B, T, D] that the codes stand for."""
        raise NotImplementedError


class Context(nn.Module):
    """Lets every token see the others: [B, T, D] -> [B, T, `dim`]. Wiring: `(dim,)`, the width of its input."""

    dim: int  # the width of the output

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` [B, T] is true for real tokens; others are ignored."""
        raise NotImplementedError


class Discriminator(nn.Module):
    """Judges signals, for adversarial training: [B, C, L] or [B, C, H, W], normalised. Wiring: `(channels, length)`.

    For images the `length` is (H, W). It is trained by the losses with a `discriminate`, and used while training only.
    No statistics of the batch: real and decoded signals are seen in separate calls.
    """

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """For each scale its features [B, ...], from the first layer to the last, then its logits: positive is real."""
        raise NotImplementedError


class Classifier(nn.Module):
    """Class scores from latents: [B, T, D] -> [B, classes]. Wiring: `(dim, tokens, classes)`."""

    def forward(self, z: Tensor) -> Tensor:
        raise NotImplementedError
