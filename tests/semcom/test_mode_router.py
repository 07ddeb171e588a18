"""A router of experts and modes: what it reads, the side information it costs, and plain routes beside it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from vqtool.api import Route
from vqtool.quantizers import VQ, Routed
from vqtool_semcom.mode_router import ModeRouter, with_mode
from vqtool_semcom.quantizers.routed_modes import RoutedModes


def test_modes_are_the_likeliest_and_the_scale_of_the_latents_does_not_matter() -> None:
    torch.manual_seed(0)
    router, z, real = ModeRouter(6, 3, modes=2), torch.randn(20, 9, 6), torch.ones(20, 9, dtype=torch.bool)
    route = router(z, real)
    assert route.expert_probs.shape == (20, 3)
    assert route.mode_probs.shape == (20, 2)
    assert len(route.mode.unique()) == 2
    assert torch.equal(route.mode, route.mode_probs.argmax(1))
    torch.testing.assert_close(router(1e3 * z, real).mode_probs, route.mode_probs)


@pytest.mark.parametrize(("experts", "modes", "bits"), [(2, 1, 1), (3, 1, 2), (3, 3, 4), (4, 4, 4), (2, 4, 3)])
def test_side_bits_name_every_choice(experts: int, modes: int, bits: int) -> None:
    route = ModeRouter(4, experts, modes=modes)(torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    assert route.side_bits == bits


def test_a_route_without_modes_takes_the_only_one() -> None:
    plain = Route(torch.tensor([0, 2]), torch.eye(3)[[0, 2]])
    route = with_mode(plain)
    assert route.mode.tolist() == [0, 0]
    assert route.mode_probs.tolist() == [[1.0], [1.0]]
    assert route.side_bits == 2
    assert with_mode(route) is route


@pytest.mark.parametrize("modes", [1, 2])
def test_balance_is_the_mean_over_experts_and_modes(modes: int) -> None:
    torch.manual_seed(0)
    quantizer = RoutedModes(6, of=[partial(VQ, codebook_size=size) for size in (4, 8)], modes=modes)
    quantizer.router.logits.bias.data[:] = torch.tensor([50.0, 0.0, *[50.0, 0.0][:modes]])  # one expert, one mode
    route, real = quantizer.router(torch.randn(8, 5, 6), torch.ones(8, 5, dtype=torch.bool)), torch.ones(8)
    assert quantizer.balance(route, real.bool()).item() == pytest.approx(2)
    if modes == 2:
        quantizer.router.logits.bias.data[2:] = 0
        quantizer.router.logits.weight.data[2:] = 0  # the modes are equally likely, though the first is taken: 1
        route = quantizer.router(torch.randn(8, 5, 6), torch.ones(8, 5, dtype=torch.bool))
        assert quantizer.balance(route, real.bool()).item() == pytest.approx(1.5)


def test_with_one_mode_it_is_routed() -> None:
    """The same codes, gradient and terms as `routed` with the same weights."""
    experts = [partial(VQ, codebook_size=size) for size in (4, 8)]
    ours, plain = RoutedModes(6, of=experts), Routed(6, of=experts)
    state = ours.state_dict()
    for name in ("router.logits.weight", "router.logits.bias"):
        state[name] = state[name][:2]
    plain.load_state_dict(state)
    z = torch.randn(30, 5, 6)
    for quantizer in (ours, plain):
        quantizer.train()
    a, b = ours(z), plain(z)
    assert torch.equal(a.codes, b.codes)
    assert {name: term.item() for name, term in a.terms.items()} == {n: term.item() for n, term in b.terms.items()}
