"""A voltage relative to its current: gain and phase of the fundamental's impedance sent apart from the shape."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import Batch, DataSpec, Norm, Rows
from vqtool_voltage.frames import fundamental, rotate
from vqtool_voltage.physics import derivative

MARGIN = 0.7  # log gain beyond the training rows' that the grid still covers: a factor of two either way


class ImpedanceNorm(Norm):
    """Takes size and position of a periodic voltage out of the codes' burden.

    The circuit does not care where a period starts: the current is turned so that the fundamental of -dI/dt has phase
    zero. The voltage is divided by its rms and turned by its *own* fundamental's phase, so that shapes fall on top of
    each other; what is sent apart is the complex ratio of the two,

        log_gain = log(rms v / rms dI/dt),    phase = arg(V_1 / (-dI/dt)_1),

    in which a good inductor has the gain M and the phase 0. Both are rounded to uniform grids of `gain_bits` and
    `phase_bits` and standardised by the training rows. Turns are exact (the shift theorem), so `invert` undoes
    `forward` but for the rounding.
    """

    sends = ("log_gain", "phase")
    centre: Tensor
    scale: Tensor
    low: Tensor
    step: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        gain_bits: Annotated[int, Interval(ge=1, le=20), Doc("bits of the log gain's grid")] = 12,
        phase_bits: Annotated[int, Interval(ge=1, le=20), Doc("bits of the phase's grid, over a full turn")] = 12,
    ) -> None:
        super().__init__(spec)
        self.sent_bits = float(gain_bits + phase_bits)
        self.gain_steps, self.phase_steps = 2**gain_bits - 1, 2**phase_bits
        self.register_buffer("centre", torch.zeros(2))  # of log gain and phase over the training rows
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("low", torch.tensor([-20.0, -math.pi]))
        self.register_buffer("step", torch.tensor([30.0 / self.gain_steps, 2 * math.pi / self.phase_steps]))

    @torch.no_grad()
    def fit(self, rows: Rows) -> None:
        """Centre, scale and range of gain and phase over the training rows."""
        ratio = self._ratio(rows.__getitems__(list(range(len(rows)))))
        self.centre.copy_(ratio.mean(0))
        self.scale.copy_(ratio.std(0) + 1e-6)
        self.low[0] = ratio[:, 0].min() - MARGIN
        self.step[0] = (ratio[:, 0].max() + MARGIN - self.low[0]) / self.gain_steps

    def condition(self, batch: Batch) -> Batch:
        """The current in its own phase."""
        return {**batch, "current": rotate(batch["current"], self._start(batch))}

    def forward(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The voltage's shape and the current, each in its own phase; sent: log gain and phase, rounded."""
        x = batch["x"]
        shape = x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-30)
        framed = {**self.condition(batch), "x": rotate(shape, fundamental(x)[:, 0].angle())}
        ratio = self._ratio(batch)
        level = ((ratio - self.low) / self.step).round()
        gain = level[:, 0].clamp(0, self.gain_steps)
        rounded = torch.stack([gain, level[:, 1]], 1) * self.step + self.low
        return framed, (rounded - self.centre) / self.scale

    def invert(self, x: Tensor, batch: Batch, sent: Tensor) -> Tensor:
        """Volts [B, 1, L] at the batch's own phase, from a shape and the scalars sent apart."""
        log_gain, phase = (sent * self.scale + self.centre).unbind(1)
        size = (log_gain + self._slope_rms(batch).log()).exp()
        return rotate(x.float() * size[:, None, None], -(self._start(batch) + phase))

    def _start(self, batch: Batch) -> Tensor:
        """The phase [B] of the fundamental of -dI/dt, a quarter of a turn behind the current's."""
        return fundamental(batch["current"].float())[:, 0].angle() - math.pi / 2

    def _slope_rms(self, batch: Batch) -> Tensor:
        """rms of dI/dt [B] in A/s."""
        slope = derivative(batch["current"].float(), batch["dt"].float(), "spectral")
        return slope.square().mean((1, 2)).sqrt() + 1e-30

    def _ratio(self, batch: Batch) -> Tensor:
        """[B, 2]: log gain and phase, the phase in [-pi, pi)."""
        x = batch["x"].float()
        gain = x.square().mean((1, 2)).sqrt().log() - self._slope_rms(batch).log()
        phase = fundamental(x)[:, 0].angle() - self._start(batch)
        return torch.stack([gain, (phase + math.pi).remainder(2 * math.pi) - math.pi], 1)
