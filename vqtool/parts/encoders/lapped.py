"""A trained lapped transform, at first the MDCT, and a residual network at the rate of the tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_doc import Doc
from annotated_types import Ge, Gt, MultipleOf
from torch import Tensor, nn

from vqtool.api import Condition, Encoder, expect_windows, not_streaming
from vqtool.errors import VqtoolError
from vqtool.layers.activation import Activation
from vqtool.layers.lapped import Analysis
from vqtool.layers.refine import Refine
from vqtool.layers.weighting import Exponent, Tilt, Weighting, shared_options


class LappedEncoder(Encoder):
    """[B, C, L] -> [B, bands * L / hop, D]: z = MDCT(x) + f(MDCT(x)), where f sees neighbouring hops, zero at first.

    With `bands`, a hop gives that many tokens, the lowest frequencies first: a quantizer that shares out its levels
    can spend them where a hop has its energy. An untrained lapped encoder and decoder reproduce the signal (but for
    half a hop at the ends): training starts from a transform codec and improves on it. All layers but one matrix work
    at the rate of the hops, so it is fast.

    With `weighting = "envelope"` each token is divided by the energy of its neighbourhood in time and frequency, to the
    power of `exponent` / 2, so that errors follow the signal, and with `tilt` less and less towards high bands. The
    decoder needs these options and `bands` as they are here: it finds the energies from the tokens alone.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        condition_dim: int = 0,
        *,
        hop: Annotated[
            int, Gt(1), MultipleOf(2), Doc("samples from one map to the next; a divisor of the window length")
        ] = 80,
        bands: Annotated[int, Gt(0), Doc("tokens per hop; a divisor of the hop")] = 1,
        span: Annotated[int, Ge(2), MultipleOf(2), Doc("hops that the linear map sees")] = 2,
        dim: Annotated[int, Ge(0), Doc("features per token; 0: all tokens of a hop have as many as the hop")] = 0,
        width: Annotated[int, Gt(0), Doc("channels of the residual network")] = 128,
        blocks: Annotated[int, Ge(0), Doc("residual blocks; 0: the linear transform alone")] = 0,
        kernel: Annotated[int, Gt(0), Doc("kernel of the residual network, in hops")] = 5,
        activation: Annotated[Activation, Doc("the nonlinearity of the residual network")] = "gelu",
        weighting: Annotated[
            Literal["none", "envelope"], Doc("what tokens are divided by: nothing, or a power of the energy around")
        ] = "none",
        exponent: Exponent = 0.6,
        tilt: Tilt = 0.0,
    ) -> None:
        super().__init__()
        expect_windows(length, "the encoder `lapped`", otherwise="conv2d")
        if hop % bands:
            raise VqtoolError(f"a hop of {hop} samples has no {bands} equal bands", hint=f"choose a divisor of {hop}")
        if length % hop:
            raise VqtoolError(
                f"a window of {length} samples is not a multiple of the hop of {hop}",
                hint=f"choose a hop that divides {length}",
            )
        self.hop, self.bands, self.stride = hop, bands, hop // bands
        self.dim = dim or channels * self.stride
        self.map = Analysis(channels, hop, bands * self.dim, span)
        self.shared = shared_options(bands, weighting, exponent, tilt)
        self.weighting = Weighting(bands, exponent, tilt) if weighting == "envelope" else None
        self.refine = Refine(
            bands * self.dim, width=width, blocks=blocks, kernel=kernel, condition_dim=condition_dim, act=activation
        )

    def forward(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Encode `x` [B, C, L]."""
        vector = condition.vector if condition is not None else None
        frames = self.map(x).transpose(1, 2)  # [B, bands * D, L / hop]
        if self.weighting is not None:
            frames = self.weighting(frames)
        frames = self.refine(frames, vector).transpose(1, 2)
        return frames.unflatten(-1, (self.bands, self.dim)).flatten(1, 2)

    @property
    def reach(self) -> int:
        """How many samples before and after its own hop a token sees at most."""
        return self.map.before + (self.refine.reach + (self.weighting is not None)) * self.hop

    def streaming(self) -> nn.Module:
        """There is none."""
        undo = "" if self.weighting is None else f", and undoing the weighting on {self.weighting.reach} hops after it"
        raise not_streaming("encoder", self, f"a token depends on the {self.reach} samples after its hop{undo}")
