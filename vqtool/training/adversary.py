"""The other player of a stage: what a discriminator says of the output, what it learns, and how hard it may push.

One forward pass and one backward pass serve both players. The output reaches the discriminator's own loss detached, and
its weights reach the other losses detached, so each optimizer gets the gradient of its own loss alone. Both gradients
are taken at the same weights, so it makes no difference which of the two is updated first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from vqtool.api.loss import Adversarial
from vqtool.api.parts import Discriminator

DECAY = 0.99  # of the averages of gradients, per micro-batch
MOST = 100.0  # the most that a loss is scaled by: gradients through a new discriminator are small and random


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a discriminator says of a batch."""

    named: Mapping[str, Any]  # what losses read: logits, and features of each scale
    loss: Tensor  # what the discriminator minimises; it depends on its own weights alone
    figures: Mapping[str, Tensor]


def verdict(
    discriminator: Discriminator, x_hat: Tensor, target: Tensor, losses: Mapping[str, nn.Module],
    weights: Mapping[str, float],
) -> Verdict:  # fmt: skip
    """Show the output and the target to the discriminator, once for each player."""
    real, fake = discriminator(target.detach()), discriminator(x_hat.detach())
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    shown = functional_call(discriminator, frozen, (x_hat,))
    real_logits, fake_logits = ([one[-1].float() for one in seen] for seen in (real, fake))
    loss = x_hat.new_zeros((), dtype=torch.float32)
    for name, one in losses.items():
        if isinstance(one, Adversarial) and weights[name]:
            loss = loss + one.discriminate(real_logits=real_logits, fake_logits=fake_logits)
    right = [(logits > 0).float().mean() for logits in real_logits]
    right += [(logits < 0).float().mean() for logits in fake_logits]
    named = {
        "fake_logits": [one[-1].float() for one in shown],
        "fake_features": [[feature.float() for feature in one[:-1]] for one in shown],
        "real_features": [[feature.detach().float() for feature in one[:-1]] for one in real],
    }
    figures = {"discriminator.loss": loss, "discriminator.accuracy": torch.stack(right).mean()}
    return Verdict(named, loss, figures)


class Balance(nn.Module):
    """Scales losses so that each pushes the output as hard as the losses of the signal do, times its own weight.

    The scale is the moving average of the norm of their gradient with respect to the output, over that of its own: the
    measure of VQGAN (Esser et al. 2021, arXiv 2012.09841), taken at the output and averaged as in EnCodec's balancer
    (Défossez et al. 2022, arXiv 2210.13438). The averages are part of the resumable state.
    """

    averages: Tensor  # [1 + N]  of the losses of the signal, and of each other loss
    seen: Tensor  # [1 + N]  what the averages would be for gradients of norm 1

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        self.register_buffer("averages", torch.zeros(1 + len(self.names)))
        self.register_buffer("seen", torch.zeros(1 + len(self.names)))

    def forward(
        self, x_hat: Tensor, of_signal: Tensor, losses: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the scale of each of some losses, how hard it then pushes: 1 is as hard as the losses of the signal).

        Takes the gradients of a micro-batch into the averages, the same on every rank; those of losses that are not
        given now stay. `of_signal` is weighted, `losses` are not.
        """
        none = of_signal.new_zeros(())
        every = [of_signal, *(losses.get(name, none) for name in self.names)]
        norms = torch.stack([gradient_norm(loss, x_hat) for loss in every])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(norms)
            norms /= dist.get_world_size()
        step = (1 - DECAY) * (norms.isfinite() & (norms > 0))  # an overflow in float16 is not averaged
        self.averages += step * (norms.nan_to_num(0.0, 0.0) - self.averages)
        self.seen += step * (1 - self.seen)
        average = self.averages / self.seen.clamp_min(1e-30)
        scales = (average[0] / average[1:].clamp_min(1e-30)).clamp_max(MOST)
        scales = scales.where(average[0] > 0, torch.ones_like(scales))  # where no loss of the signal reaches the output
        pushes = scales * average[1:] / average[0].clamp_min(1e-30)
        at = {name: place for place, name in enumerate(self.names) if name in losses}
        return {name: scales[i] for name, i in at.items()}, {name: pushes[i] for name, i in at.items()}


def gradient_norm(loss: Tensor, x_hat: Tensor) -> Tensor:
    """The norm of a loss's gradient with respect to the output, times the number of values: float16 has a floor."""
    if not loss.requires_grad:
        return loss.new_zeros(()).float()
    (gradient,) = torch.autograd.grad(loss * x_hat.numel(), x_hat, retain_graph=True, allow_unused=True)
    return loss.new_zeros(()).float() if gradient is None else gradient.float().norm()
