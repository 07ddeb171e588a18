"""How far the soft path through a channel is from the deployed one, stage by stage."""

from __future__ import annotations

from typing import Annotated

from annotated_doc import Doc
from annotated_types import MinLen
from torch import Tensor

from vqtool.api import DataSpec, Loss, Received
from vqtool.errors import VqtoolError
from vqtool_semcom.distance import distance


class Alignment(Loss):
    """Mean over the named stages of |soft - sg(hard)|^2 / var(sg(hard)), both behind the same noise.

    The hard side is constant: it has no gradient. Thanks to the variance, a soft path that always gives the mean has
    a loss of 1, whatever the scale. "bits" and "symbols" are as sent, "llr" and "vectors"
    (what the classifier reads) as received; "logits" is what the classifier says, with the task's option `both`.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        stages: Annotated[
            tuple[str, ...], MinLen(1), Doc("of bits, symbols, llr, vectors and logits, as far as the link has them")
        ] = ("vectors",),
    ) -> None:
        super().__init__(spec)
        self.stages = stages

    def forward(self, *, received: Received) -> Tensor:
        """Raises VqtoolError where the channel or the quantizer has no such stage."""
        missing = [name for name in self.stages if name not in received.stages]
        if missing:
            known = ", ".join(f"`{name}`" for name in received.stages)
            raise VqtoolError(
                f"loss `alignment`: the link has no stage `{missing[0]}`",
                hint=f"it has {known}" if known else "the quantizer gives no probabilities: soft-ema and soft do",
            )
        return sum((distance(*received.stages[name]) for name in self.stages), start=received.z.new_zeros(())) / len(
            self.stages
        )
