"""How far an estimated voltage keeps Faraday's law v = -M x dI/dt with the current, softly."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_doc import Doc
from annotated_types import Ge
from torch import Tensor, nn

from vqtool.api import DataSpec, Loss
from vqtool.errors import VqtoolError
from vqtool_voltage import physics
from vqtool_voltage.fields import check_fields, materials, times_and_materials

NOMINAL = 2e-4  # henry; where a learned M starts if the data tells nothing better
FAINT = 0.1  # an estimate fainter than this share of ||v|| is divided by it: an untrained decoder starts near silence


class Faraday(Loss):
    """The mean over the batch of a dimensionless residual of r = v_hat + M x dI/dt, one value a waveform.

    soft: ||r(v_hat)||^2 / ||v||^2. The law itself is far from exact on a real core, so its minimum is a compromise.
    matched: | ||r(v_hat)||/||v_hat|| - ||r(v)||/||v|| |: the estimate shall keep the law as well as the measured
    voltage does, neither better nor worse.
    correlation: 1 - corr(v_hat, -x dI/dt); needs no M and ignores the gain, but knows the sign.

    Voltages and slopes are first projected on the harmonics of `band`. M is never fitted to the estimate, which could
    then bend it to excuse itself: `closed-form` takes the least-squares M of each measured waveform; `learned` holds
    one log M for each material, which receives the gradient of the measured voltage's soft residual and no other
    (that term is added with the value zero). Runs in float32 whatever the precision of the forward pass.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        mode: Annotated[
            Literal["soft", "matched", "correlation"], Doc("what is asked of the residual; see the page of this loss")
        ] = "matched",
        derivative: Annotated[
            Literal["central", "spectral", "forward"], Doc("how dI/dt is taken on the circle of one period")
        ] = "central",
        inductance: Annotated[
            Literal["learned", "closed-form"],
            Doc("M: one learned number a material, or the best fit of each measured waveform"),
        ] = "learned",
        band: Annotated[
            Annotated[int, Ge(1)] | Literal["all"], Doc("keep the first so many harmonics; `all` keeps everything")
        ] = 1,
    ) -> None:
        super().__init__(spec)
        check_fields(spec, "the loss `faraday`")
        self.mode, self.derivative, self.harmonics = mode, derivative, None if band == "all" else band
        if self.harmonics is not None and self.harmonics > spec.length // 2:
            raise VqtoolError(
                f"`band` is {band}, but a period of {spec.length} samples has {spec.length // 2} harmonics",
                where="losses.faraday.band",
            )
        self.log_inductance: nn.Parameter | None = None
        if mode != "correlation" and inductance == "learned":
            count = materials(spec)
            known = torch.tensor(spec.metadata.get("inductance_h", [NOMINAL] * count), dtype=torch.float32)
            self.log_inductance = nn.Parameter(known.where(known > 0, torch.tensor(NOMINAL)).log())

    def forward(
        self,
        *,
        estimate: Tensor,
        x: Tensor,
        current: Tensor,
        dt: Tensor | None = None,
        frequency: Tensor | None = None,
        material: Tensor | None = None,
        x_position: Tensor | None = None,
    ) -> Tensor:
        """`estimate`, `x` [B, 1, L] in volt, `current` [B, 1, L] in ampere, `dt` [B] in seconds, `material` [B].

        Without `dt` it follows from `frequency` [B]; without `material` there is one.
        `x_position`, the x of the law, is a factor [B] or one a sample, [B, 1, L]; 1 where the data has none.
        """
        dt, material = times_and_materials(current, dt, frequency, material)
        slope = physics.derivative(current.float(), dt.float(), self.derivative)
        if x_position is not None:
            slope = slope * physics.per_wave(x_position.float(), slope)
        guess, real, slope = [physics.band(s, self.harmonics) for s in (estimate.float(), x.float(), slope)]
        if self.mode == "correlation":
            return (1 - physics.agreement(guess, slope, FAINT * physics.norm(real))).mean()
        if self.log_inductance is None:
            return self._compare(guess, real, slope, physics.closed_form_inductance(real, slope))
        m = self.log_inductance.exp()[material]
        identify = physics.relative_residual(real, slope, m).square().mean()
        return self._compare(guess, real, slope, m.detach()) + (identify - identify.detach())

    def _compare(self, guess: Tensor, real: Tensor, slope: Tensor, m: Tensor) -> Tensor:
        """The loss with M given, [] from [B, 1, L]."""
        if self.mode == "soft":
            excess = physics.norm(physics.residual(guess, slope, m)) / physics.norm(real)
            return excess.square().mean()
        ours = physics.relative_residual(guess, slope, m, FAINT * physics.norm(real))
        theirs = physics.relative_residual(real, slope, m)
        return (ours - theirs).abs().mean()
