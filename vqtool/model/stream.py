"""A model that follows a signal as it comes: chunks to codes and codes to chunks, in bounded memory."""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Self

import torch
from torch import Tensor

from vqtool.api.data import DataSpec
from vqtool.api.parts import Norm
from vqtool.api.spec import MASK, Batch
from vqtool.api.task import Parts
from vqtool.errors import VqtoolError
from vqtool.model.fields import fields_of
from vqtool.model.precision import autocast


class Stream:
    """Codes of a signal that comes in chunks, and the signal of codes that come in chunks; of any sizes.

        with model.stream(rate=16_000) as stream:
            for chunk in chunks:                     # [B, C, n]
                codes = stream.encode(chunk)         # [B, t, Q]: what is complete by now; t may be 0
                sound = stream.decode(codes)         # [B, C, m]: at once; nothing later is waited for
            codes = stream.flush()                   # of the last frame, filled up with zeros

    Encoder and decoder compute one frame at a time, the shortest stretch of whole tokens, after what they remember of
    those before. So the sizes of the chunks cannot change a bit of the result, and memory does not grow. On a CPU
    `Model.encode` and `Model.decode` compute in this way, too: a stream agrees with them bit for bit.

    A stream has weights of its own, those of the model when it was opened; several do not disturb each other.

    Attributes:
        frame: samples of a frame, the latency: a sample waits for at most so many.
        rate: samples a second; None where the data have none.
    """

    def __init__(
        self, parts: Parts, spec: DataSpec, *, levels: int | None = None, rate: float | None = None,
        precision: str = "fp32",
    ) -> None:  # fmt: skip
        if rate not in (None, spec.sample_rate):
            known = f"{spec.sample_rate:g} Hz" if spec.sample_rate else "a rate that its data do not say"
            raise VqtoolError(f"this model streams at {known}, not at {rate} Hz",
                              hint="resample the chunks, for example by soxr.ResampleStream")  # fmt: skip
        why = _obstacle(parts, spec)
        if why is not None:
            raise VqtoolError(f"this model cannot stream: {why}")
        self.encoder = parts.encoder.streaming()
        self.decoder = parts.decoder.streaming() if "decoder" in parts else None
        self.quantizer = copy.deepcopy(parts.quantizer).eval()
        if levels is not None:
            self.quantizer.use_levels(levels)
        self.levels, self.precision, self.channels, self.rate = levels, precision, spec.channels, spec.sample_rate
        self.bands = int(parts.encoder.bands)
        self.frame = int(parts.encoder.stride) * self.bands
        self.samples = Begun(self.frame, -1)
        self.codes = Begun(self.bands, 1)
        self.closed = False

    @property
    def latency_ms(self) -> float | None:
        """How long a sample waits at most until its codes are there, but for computing; None without a `rate`."""
        return None if self.rate is None else 1000 * self.frame / self.rate

    @torch.no_grad()
    def encode(self, chunk: Tensor | Any) -> Tensor:
        """The codes [B, t, Q] that `chunk` [B, C, n] completes; n may be any number, and B stays as it was.

        Raises:
            VqtoolError: the chunk has another shape than the model's signals, or the stream is closed.
        """
        x = self._given(chunk, "chunk")
        if x.dim() != 3 or x.shape[1] != self.channels or not x.is_floating_point():
            raise VqtoolError(
                f"a chunk should be floats [B, {self.channels}, n], not {x.dtype} {list(x.shape)}",
                hint="chunk[None, None] adds the first two axes; 16-bit samples are divided by 32768",
            )
        with autocast(x.device, self.precision):
            coded = [self.quantizer(self.encoder(frame)).codes for frame in self.samples.completed_by(x)]
        none = torch.zeros(len(x), 0, len(self.quantizer.codebook_sizes), dtype=torch.long, device=x.device)
        return torch.cat([none, *coded], 1)[..., : self.levels]

    def flush(self) -> Tensor:
        """The codes [B, t, Q] of the frame that was begun, filled up with zeros; t is 0 where none was."""
        held = self.samples.held
        if held is None:
            raise VqtoolError("nothing was encoded: there is nothing to flush")
        return self.encode(held.new_zeros(*held.shape[:2], -held.shape[2] % self.frame))

    @torch.no_grad()
    def decode(self, codes: Tensor | Any) -> Tensor:
        """The signal [B, C, m] of `codes` [B, t, Q], of which the first levels are enough; t may be any number.

        Raises:
            VqtoolError: these are not codes of this model, it has no decoder, or the stream is closed.
        """
        given = self._given(codes, "codes")
        if self.decoder is None:
            raise VqtoolError("this model cannot decode: it has no decoder")
        self.quantizer.check_codes(given)
        with autocast(given.device, self.precision):
            sounds = [self.decoder(self.quantizer.decode(moment).float()) for moment in self.codes.completed_by(given)]
        return torch.cat([torch.zeros(len(given), self.channels, 0, device=given.device), *sounds], -1)

    def _given(self, value: Tensor | Any, name: str) -> Tensor:
        if self.closed:
            raise VqtoolError("this stream is closed", hint="with model.stream() as stream: ...")
        return fields_of(value, name)[name].to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the stream computes."""
        return next(self.encoder.parameters()).device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def __repr__(self) -> str:
        known = "" if self.latency_ms is None else f", {self.latency_ms:g} ms at {self.rate:g} Hz"
        return f"Stream(latency {self.frame} samples{known})"


class Begun:
    """What came of a frame that is not complete, along one axis."""

    def __init__(self, size: int, axis: int) -> None:
        self.size, self.axis = size, axis
        self.held: Tensor | None = None

    def completed_by(self, new: Tensor) -> list[Tensor]:
        """The frames that `new` completes; what is left over is held."""
        if self.held is not None:
            fits = [a.movedim(self.axis, 0).shape[1:] for a in (self.held, new)]
            if fits[0] != fits[1]:
                raise VqtoolError(f"a chunk has the shape {list(new.shape)}, and others before it had"
                                  f" {list(self.held.shape)}", hint="open a stream for each signal")  # fmt: skip
            new = torch.cat([self.held, new], self.axis)
        whole = new.shape[self.axis] // self.size * self.size
        self.held = new.narrow(self.axis, whole, new.shape[self.axis] - whole).clone()
        frames = new.narrow(self.axis, 0, whole)
        return [frame.contiguous() for frame in frames.split(self.size, self.axis)] if whole else []


def framewise(parts: Parts, spec: DataSpec, batch: Batch, precision: str) -> Stream | None:
    """What computes whole rows as they are streamed, where both are the same bit for bit: on a CPU, without padding."""
    if MASK in batch or any(value.device.type != "cpu" for value in parts.state_dict().values()):
        return None
    with contextlib.suppress(VqtoolError):
        return Stream(parts, spec, precision=precision)
    return None


def _obstacle(parts: Parts, spec: DataSpec) -> str | None:
    """Why a model cannot stream, but for its encoder and decoder, which report that themselves."""
    if "encoder" not in parts or "quantizer" not in parts:
        return "it has no encoder and quantizer"
    if "norm" in parts and type(parts.norm) is not Norm:
        return "its norm reads whole windows"
    if "conditioner" in parts or not isinstance(spec.extent, int):
        return "it reads a condition, or images"
    if any(getattr(part, "topology", "") == "routed" for part in parts.quantizer.modules()):
        return "its quantizer chooses an expert for a whole window"
    return None
