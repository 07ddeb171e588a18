"""What baselines of pictures share: a thumbnail's pixels as bits over the model's channel, and its classifier."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_doc import Doc
from annotated_types import Ge, Gt
from torch import Tensor, nn

from vqtool.api import Baseline, Batch, DataSpec, Parts, Quantized, Rows
from vqtool.errors import VqtoolError
from vqtool_semcom.bit_channel import BitChannel


class Thumbnails(Baseline):
    """The picture shrunk to as many pixels as the bits carry: uniform levels with a Gray code.

    The receiver computes the mean level given the LLRs and classifies it with a multilayer perceptron.
    """

    kind: ClassVar[str]  # its name in a recipe
    through_the_channel: ClassVar[bool]  # how the classifier is trained; or on what was sent

    def __init__(
        self,
        spec: DataSpec,
        *,
        pixel_bits: Annotated[int, Ge(1), Doc("bits per pixel")] = 2,
        width: Annotated[int, Gt(0), Doc("hidden features of the classifier")] = 256,
        epochs: Annotated[int, Ge(1), Doc("passes over the training rows; at least 200 steps of 256 rows")] = 12,
    ) -> None:
        super().__init__(spec)
        self.pixel_bits, self.width, self.epochs = pixel_bits, width, epochs

    def payload(self, channel: BitChannel, bits: int) -> int:
        """The bits of a thumbnail, given the model's `channel` and its `bits` per picture."""
        raise NotImplementedError

    def prepare(self, parts: Parts) -> None:
        """Take the model's channel, for pixels instead of codes, and its bits per picture.

        Raises:
            VqtoolError: there is no channel of bits, it has several modes, or no thumbnail fits its bits.
        """
        channel = getattr(parts, "channel", None)
        if not isinstance(channel, BitChannel):
            raise VqtoolError(f"the baseline `{self.kind}` needs a channel that carries bits")
        if len(channel.symbol_bits) > 1:
            raise VqtoolError(
                f"the baseline `{self.kind}` needs a channel with one mode, and this one has several",
                hint=f"give one `channel.order`, or remove `{self.kind}` from `evaluate.baselines`",
            )
        height, width = self.spec.signal.shape[-2:]
        bits = self.payload(channel, height * width // parts.encoder.stride * channel.width)
        self.side = isqrt(bits // (self.pixel_bits * self.spec.channels))
        if not 0 < self.side <= min(height, width):
            raise VqtoolError(
                f"{bits} bits per picture are too few or too many for a thumbnail of {self.pixel_bits} bits per pixel",
                hint=f"change the baseline's `pixel_bits`, or remove `{self.kind}` from `evaluate.baselines`",
            )
        levels = 2**self.pixel_bits
        self.table = ((torch.arange(levels) + 0.5) / levels)[:, None]
        self.channel = channel.for_codes((levels,), "pca-gray").cpu()
        self.channel.prepare((self.table,))

    def fit(self, rows: Rows) -> None:
        """Train on all training rows, with a fixed seed."""
        generator = torch.Generator().manual_seed(0)
        (label,) = self.spec.named("label").values()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            inputs = self.spec.channels * self.side**2
            self.net = nn.Sequential(
                nn.Linear(inputs, self.width), nn.ReLU(), nn.Linear(self.width, self.width), nn.ReLU(),
                nn.Linear(self.width, len(label.names)),
            )  # fmt: skip
            batch = rows.__getitems__(list(range(len(rows))))
            sent, known = self._pixels(batch["x"]), batch["label"]
            optimizer = torch.optim.AdamW(self.net.parameters(), lr=2e-3, weight_decay=0.01)
            steps = max(200, self.epochs * len(sent) // 256)
            slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            self.channel.train()
            for _ in range(steps):
                at = torch.randint(len(sent), (256,), generator=generator)
                seen = self._arrived(sent[at], None) if self.through_the_channel else self._shown(sent[at])
                loss = F.cross_entropy(self.net(seen), known[at])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                slower.step()
            self.channel.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Mapping[str, Mapping[str, Tensor]]:
        """`scores` by level, like those of the deployed path."""
        sent = self._pixels(batch["x"])
        return {"scores": {f"hard{n}": self.net(self._arrived(sent, at)) for n, at in self.channel.levels().items()}}

    def _pixels(self, x: Tensor) -> Tensor:
        """Codes [B, pixels, 1] of the thumbnails."""
        small = F.adaptive_avg_pool2d(x, self.side).flatten(1)[..., None]
        return (small * len(self.table)).long().clamp(0, len(self.table) - 1)

    def _shown(self, codes: Tensor) -> Tensor:
        """The thumbnails [B, pixels] from -1 to 1, as they are sent."""
        return self.table[codes[..., 0]].flatten(1) * 2 - 1

    def _arrived(self, codes: Tensor, level: float | None) -> Tensor:
        """The same behind the channel."""
        values = self.table[codes[..., 0]]
        with torch.no_grad():
            received = self.channel(Quantized(z=values, codes=codes, hard=values), (self.table,), level=level)
        return received.hard.flatten(1) * 2 - 1
