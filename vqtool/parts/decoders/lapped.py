"""The mirror of the lapped encoder: a residual network at the rate of the tokens, then overlap-add."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_doc import Doc
from annotated_types import Ge, Gt, MultipleOf
from torch import Tensor

from vqtool.api import Condition, Decoder, Encoder, expect_windows
from vqtool.errors import VqtoolError
from vqtool.layers.activation import Activation
from vqtool.layers.lapped import Synthesis
from vqtool.layers.refine import Refine
from vqtool.layers.weighting import Exponent, Tilt, Weighting, shared_options


class LappedDecoder(Decoder):
    """[B, T, D] -> [B, C, T * stride]: x = overlap-add of MDCT^T (z + f(z)), f zero at first.

    The residual network sees the hops around each one and learns what their errors have in common.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        length: int,
        stride: int,
        condition_dim: int = 0,
        *,
        bands: Annotated[int, Gt(0), Doc("tokens per hop, as the encoder's")] = 1,
        span: Annotated[int, Ge(2), MultipleOf(2), Doc("hops that the linear map writes")] = 2,
        width: Annotated[int, Gt(0), Doc("channels of the residual network")] = 128,
        blocks: Annotated[int, Ge(0), Doc("residual blocks; 0: the linear transform alone")] = 0,
        kernel: Annotated[int, Gt(0), Doc("kernel of the residual network, in hops")] = 5,
        activation: Annotated[Activation, Doc("the nonlinearity of the residual network")] = "gelu",
        weighting: Annotated[Literal["none", "envelope"], Doc("as the encoder's")] = "none",
        exponent: Exponent = 0.6,
        tilt: Tilt = 0.0,
    ) -> None:
        super().__init__()
        expect_windows(length, "the decoder `lapped`", otherwise="conv2d")
        self.bands, self.shared = bands, shared_options(bands, weighting, exponent, tilt)
        self.refine = Refine(
            bands * dim, width=width, blocks=blocks, kernel=kernel, condition_dim=condition_dim, act=activation
        )
        self.weighting = Weighting(bands, exponent, tilt) if weighting == "envelope" else None
        self.map = Synthesis(channels, stride * bands, bands * dim, span)

    def check_encoder(self, encoder: Encoder) -> None:
        """The weighting that is undone has to be the encoder's."""
        theirs = getattr(encoder, "shared", {"weighting": "none"})
        for name, own in self.shared.items():
            if own != theirs.get(name, own):
                raise VqtoolError(
                    f"the decoder `lapped` has `{name}` = {own}, and the encoder has {theirs[name]}",
                    hint=f"give [encoder] and [decoder] the same `{name}`",
                )

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Decode `z` [B, T, D]."""
        vector = condition.vector if condition is not None else None
        if z.shape[1] % self.bands:
            raise VqtoolError(f"{z.shape[1]} tokens are not a whole number of hops of {self.bands}")
        frames = z.unflatten(1, (-1, self.bands)).flatten(2).transpose(1, 2)  # [B, bands * D, T / bands]
        frames = self.refine(frames, vector)
        if self.weighting is not None:
            frames = self.weighting.inverse(frames)
        return self.map(frames.transpose(1, 2))

    @property
    def reach(self) -> int:
        """How many hops before and after its own a sample depends on at most."""
        around = self.weighting.reach if self.weighting is not None else 0
        return self.refine.reach + around + self.map.span // 2
