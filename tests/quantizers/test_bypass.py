"""`bypass`: every quantizer passes its inputs on unquantized, wholly or in part, and is as it was afterwards."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import vqtool
from vqtool.api import Quantized, Quantizer
from vqtool.catalog import catalog
from vqtool.quantizers import FSQ, VQ, Residual

KINDS = catalog().names("quantizer")
DIM = 8


def made(kind: str) -> Quantizer:
    return catalog().make("quantizer", kind, {}, DIM)


def latents(seed: int = 0) -> Tensor:
    return torch.randn(4, 16, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_inputs_flow_on_as_they_are_and_nothing_else_happens(kind: str, training: bool) -> None:
    quantizer, z = made(kind).train(training), latents().requires_grad_()
    before = copy.deepcopy(quantizer.state_dict())
    quantizer.bypass = 1
    q = quantizer(z)
    assert torch.equal(q.z, z)
    assert (q.codes == -1).all()
    assert q.codes.shape == (4, 16, len(quantizer.codebook_sizes))
    assert q.stats == ()
    assert q.terms.keys() == quantizer.terms
    assert not any(float(term.detach()) for term in q.terms.values())
    upstream = torch.randn_like(z)
    ((q.z * upstream).sum() + sum(q.terms.values())).backward()
    assert torch.equal(z.grad, upstream)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_afterwards_it_quantizes_as_if_nothing_had_been(kind: str) -> None:
    quantizer, z = made(kind), latents()
    quantizer.initialise(z)
    quantizer.eval()
    before = quantizer(z)
    quantizer.bypass = 1
    quantizer(z)
    quantizer.bypass = 0.0
    after = quantizer(z)
    assert torch.equal(after.z, before.z)
    assert torch.equal(after.codes, before.codes)
    assert (after.codes >= 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_in_between_it_lies_on_the_way_from_the_codes_to_the_inputs(kind: str) -> None:
    quantizer, z = made(kind), latents()
    quantizer.initialise(z)
    quantizer.eval()
    whole = quantizer(z)
    quantizer.bypass = 0.25
    part = quantizer(z)
    torch.testing.assert_close(part.z, 0.75 * whole.z + 0.25 * z)
    assert torch.equal(part.codes, whole.codes)
    assert part.terms.keys() == whole.terms.keys()


def test_a_gradient_of_one_stays_one_in_between() -> None:
    quantizer, z = VQ(DIM, codebook_size=8), latents().requires_grad_()
    quantizer.initialise(z.detach())
    quantizer.bypass = 0.5
    upstream = torch.randn_like(z)
    (quantizer(z).z * upstream).sum().backward()
    torch.testing.assert_close(z.grad, upstream)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens_and_those_that_are_not_finite_do_not_count(kind: str) -> None:
    quantizer, z = made(kind), latents()
    z[0, 3, 2] = torch.nan
    z[1, 0] = torch.inf
    mask = torch.ones(4, 16, dtype=torch.bool)
    mask[1, 0] = mask[2, 5:] = False
    quantizer.bypass = 1
    q = quantizer(z.requires_grad_(), mask)
    counts = mask.clone()
    counts[0, 3] = False
    assert torch.equal(q.z, torch.where(counts[..., None], z, 0))
    assert q.not_finite == 1
    q.z.sum().backward()
    assert torch.equal(z.grad, counts[..., None].expand_as(z).float())


@pytest.mark.parametrize(
    ("layout", "shape", "codes"),
    [("BTD", (2, 5, DIM), (2, 5, 2)), ("BCL", (2, DIM, 5), (2, 5, 2)), ("BCHW", (2, DIM, 3, 4), (2, 3, 4, 2)),
     ("BHWC", (2, 3, 4, DIM), (2, 3, 4, 2)), ("BCTHW", (2, DIM, 2, 3, 4), (2, 2, 3, 4, 2)), ("ND", (7, DIM), (7, 2))],
)  # fmt: skip
def test_layouts(layout: str, shape: tuple[int, ...], codes: tuple[int, ...]) -> None:
    quantizer, z = Residual(DIM, layout, levels=2), torch.randn(shape)  # type: ignore[arg-type]  # one of the layouts
    quantizer.bypass = 1
    q = quantizer(z)
    assert torch.equal(q.z, z)
    assert q.codes.shape == codes


def test_a_quantizer_of_ones_own_that_builds_upon_another_mixes_once() -> None:
    class Doubled(VQ):
        def forward(self, z: Tensor, mask: Tensor | None = None) -> Quantized:
            return super().forward(z, mask)

    quantizer, z = Doubled(DIM, codebook_size=8), latents()
    quantizer.initialise(z)
    whole = quantizer(z).z
    quantizer.bypass = 0.5
    torch.testing.assert_close(quantizer(z).z, (whole + z) / 2)


def test_it_is_in_no_state() -> None:
    quantizer = FSQ(DIM)
    quantizer.bypass = 1
    assert "bypass" not in quantizer.state_dict()
    assert "bypass" not in quantizer.knobs


def test_attached_codebooks_rest_while_they_are_bypassed() -> None:
    """No start, no update, and no word of codes that are not counted."""
    model = nn.Sequential(nn.Linear(DIM, DIM), VQ(DIM, codebook_size=8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    vqtool.attach(optimizer, model)
    monitor = vqtool.CodebookMonitor(model, every=5)

    def steps(first: int, count: int) -> None:
        for step in range(first, first + count):
            optimizer.zero_grad()
            model(latents(step)).z.square().mean().backward()
            optimizer.step()
            monitor.look(step + 1)

    quantizer = model[1]
    quantizer.bypass = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(0, 40)
    assert not quantizer.initialised
    assert not monitor.rows
    quantizer.bypass = 0
    steps(40, 10)
    assert quantizer.initialised
    assert monitor.rows
    state = copy.deepcopy(quantizer.state_dict())
    quantizer.bypass = 1
    steps(50, 10)
    assert all(torch.equal(value, state[name]) for name, value in quantizer.state_dict().items())
