"""How many operators a training step and an encode launch on an accelerator, counted on the meta device."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vqtool.quantizers import VQ, Residual

VIEWS = {  # these launch nothing
    "view", "_unsafe_view", "reshape", "t", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze", "detach",
    "alias", "split", "split_with_sizes", "unbind", "as_strided", "permute", "view_as", "empty", "empty_like",
    "new_empty", "empty_strided", "lift_fresh", "is_same_size", "unsafe_split",
}  # fmt: skip


class Count(TorchDispatchMode):
    """Names of the operators that ran inside it."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        if name not in VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


CASES = {
    "vq": (partial(VQ, codebook_size=1024, start="random"), (8, 4096, 64)),
    "residual 8": (partial(Residual, levels=8, of=partial(VQ, codebook_size=1024, start="random")), (8, 512, 128)),
}


def step(make, shape, train=True):
    """The operators of a step: forward, backward from a gradient of the values and the commitment, update."""
    quantizer, x = make(shape[-1]), torch.randn(shape)
    quantizer.initialise(x[:1])
    quantizer.train(train).to("meta")
    x = x.to("meta").requires_grad_(train)
    upstream, weight = torch.empty_like(x), torch.empty((), device="meta")
    with Count() as count:
        result = quantizer(x)
        if train:
            torch.autograd.backward([result.z, result.terms["commitment"]], [upstream, weight])
            quantizer.update(result.stats)
    assert "_local_scalar_dense" not in count.names  # no wait for the device
    return len(count.names)


@pytest.mark.parametrize(("case", "train", "encode"), [("vq", 165, 77), ("residual 8", 1169, 499)])
def test_without_kernels(case, train, encode):
    assert step(*CASES[case]) <= train
    assert step(*CASES[case], train=False) <= encode
