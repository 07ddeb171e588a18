"""A voltage relative to what its current's fitted impedance predicts; gain and phase are side information."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_doc import Doc
from annotated_types import Interval
from torch import Tensor

from vqtool.api import Batch, DataSpec, Norm, Rows
from vqtool_voltage import admittance, reals
from vqtool_voltage.fields import check_fields, completed, materials
from vqtool_voltage.frames import phase_of, rotate

MARGIN = 0.7  # log gain beyond the training rows' that the grid still covers: a factor of two either way


class ImpedanceNorm(Norm):
    """Takes size and position of a periodic voltage out of the codes' burden.

    The current predicts a voltage through the admittance of its material (see `admittance`), fitted on the training
    rows, harmonic by harmonic. That predicted voltage U takes the place of the current, turned so that its fundamental
    has phase zero: the circuit does not care where a period starts. The voltage itself is divided by its rms and turned
    by its *own* fundamental's phase, so that shapes fall on top of each other. The side information is what is left,

        log_gain = log(rms v / rms U),    phase = arg(V_1 / U_1),

    rounded to uniform grids of `gain_bits` and `phase_bits` and standardised by the training rows. Turns are exact (the
    shift theorem), so `invert` undoes `forward` but for the rounding.
    """

    sends = ("log_gain", "phase")
    beta: Tensor
    known: Tensor
    centre: Tensor
    scale: Tensor
    low: Tensor
    step: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        harmonics: Annotated[int, Interval(ge=1, le=63), Doc("harmonics of the current that are used")] = 11,
        gain_bits: Annotated[int, Interval(ge=1, le=20), Doc("bits of the log gain's grid")] = 12,
        phase_bits: Annotated[int, Interval(ge=1, le=20), Doc("bits of the phase's grid, over a full turn")] = 12,
    ) -> None:
        super().__init__(spec)
        check_fields(spec, "the norm `impedance`")
        self.harmonics = min(harmonics, spec.length // 2 - 1)
        self.gain_steps, self.phase_steps = 2**gain_bits - 1, 2**phase_bits
        size = len(admittance.KNOTS_HZ) * admittance.TERMS
        self.register_buffer("beta", torch.zeros(materials(spec), size, 2))  # real and imaginary part
        self.register_buffer("known", torch.zeros(2, 4))  # of temperature and log amplitude: mean, deviation, range
        self.register_buffer("centre", torch.zeros(2))  # of log gain and phase over the training rows
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("low", torch.tensor([-20.0, -math.pi]))
        self.register_buffer("step", torch.tensor([30.0 / self.gain_steps, 2 * math.pi / self.phase_steps]))

    @torch.no_grad()
    def fit(self, rows: Rows) -> None:
        """The admittances of all materials, then centre, scale and range of gain and phase, over the training rows."""
        batch = completed(rows.__getitems__(list(range(len(rows)))))
        names = self.spec.fields["meta"].names if "meta" in self.spec.fields else ()
        for at, name in enumerate(("temperature", "log_current_amplitude")):
            if name in names:
                column = batch["meta"][:, names.index(name)]
                self.known[at] = torch.stack([column.mean(), column.std() + 1e-6, column.min(), column.max()])
            else:
                self.known[at] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # unknown, and not read
        exact = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
        design = self._design(exact)
        voltage = torch.fft.rfft(exact["x"][:, 0])[:, 1 : self.harmonics + 1]
        slope = self._slope(exact)
        for material in range(len(self.beta)):
            mine = batch["material"] == material
            if mine.any():
                beta = admittance.fit(design[mine], voltage[mine], slope[mine])
                self.beta[material] = torch.view_as_real(beta).float()
        ratio = _ratio(batch["x"], self._predicted(batch))
        self.centre.copy_(ratio.mean(0))
        self.scale.copy_(ratio.std(0) + 1e-6)
        self.low[0] = ratio[:, 0].min() - MARGIN
        self.step[0] = (ratio[:, 0].max() + MARGIN - self.low[0]) / self.gain_steps

    def condition(self, batch: Batch) -> Batch:
        """The predicted voltage, its fundamental at phase zero, in the place of the current."""
        return {**batch, "current": _turned(self._predicted(batch))}

    def forward(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The voltage's shape and the predicted voltage, each in its own phase; and log gain and phase, rounded."""
        x = batch["x"].float()
        shape = x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-30)
        predicted = self._predicted(batch)
        normed = {**batch, "current": _turned(predicted), "x": _turned(shape)}
        level = ((_ratio(x, predicted) - self.low) / self.step).round()
        gain = level[:, 0].clamp(0.0, float(self.gain_steps))
        rounded = torch.stack([gain, level[:, 1]], 1) * self.step + self.low
        return normed, (rounded - self.centre) / self.scale

    def invert(self, x: Tensor, batch: Batch, sent: Tensor) -> Tensor:
        """Volts [B, 1, L] at the batch's own phase, from a shape and the side information."""
        predicted = self._predicted(batch)
        log_gain, phase = (sent.float() * self.scale + self.centre).unbind(1)
        size = (log_gain + _rms(predicted).log()).exp()
        return rotate(x.float() * size[:, None, None], -(phase_of(predicted)[:, 0] + phase))

    def _predicted(self, batch: Batch) -> Tensor:
        """The voltage [B, 1, L] that current and fitted admittance predict, in volts; band-limited to `harmonics`."""
        batch = completed(batch)
        if torch.compiler.is_compiling():
            current = batch["current"][:, 0]
            slope = reals.slope_lines(current, batch["frequency"], self.harmonics)
            return reals.predicted(slope, self._design(batch), self.beta[batch["material"]], current.shape[-1])[:, None]
        beta = torch.view_as_complex(self.beta)[batch["material"]]  # [B, P]
        admitted = (self._design(batch).to(beta.dtype) * beta[:, None]).sum(-1)
        lines = -self._slope(batch) / torch.where(admitted.abs() < 1e-30, 1, admitted)
        length = batch["current"].shape[-1]
        spectrum = torch.nn.functional.pad(lines, (1, length // 2 - self.harmonics))
        return torch.fft.irfft(spectrum, n=length)[:, None]

    def _slope(self, batch: Batch) -> Tensor:
        """The harmonics 1 .. H of dI/dt [B, H], complex, as `rfft` scales them."""
        current = torch.fft.rfft(batch["current"][:, 0])[:, 1 : self.harmonics + 1]
        order = torch.arange(1, self.harmonics + 1, device=current.device)
        return current * (2j * math.pi * order) * batch["frequency"][:, None]

    def _design(self, batch: Batch) -> Tensor:
        """The admittance's design matrix [B, H, P]."""
        known = [torch.zeros_like(batch["frequency"])] * 2
        names = self.spec.fields["meta"].names if "meta" in self.spec.fields else ()
        for at, name in enumerate(("temperature", "log_current_amplitude")):
            if name in names:
                column = batch["meta"][:, names.index(name)]
                mean, deviation, low, high = self.known[at]
                known[at] = (column.clamp(low, high) - mean) / deviation  # a quadratic must not be extrapolated
        return admittance.design(batch["frequency"], known[0], known[1], self.harmonics)


def _turned(x: Tensor) -> Tensor:
    """`x` [B, 1, L] with its fundamental at phase zero."""
    return rotate(x, phase_of(x)[:, 0])


def _ratio(x: Tensor, predicted: Tensor) -> Tensor:
    """[B, 2]: log gain and phase of `x` against `predicted`, both [B, 1, L]; the phase in [-pi, pi)."""
    gain = _rms(x).log() - _rms(predicted).log()
    phase = phase_of(x)[:, 0] - phase_of(predicted)[:, 0]
    return torch.stack([gain, (phase + math.pi).remainder(2 * math.pi) - math.pi], 1)


def _rms(x: Tensor) -> Tensor:
    """[B, C, L] -> [B]."""
    return x.square().mean((1, 2)).sqrt() + 1e-30
