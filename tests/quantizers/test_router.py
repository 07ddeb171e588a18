"""The router's choice and its load balance: the laws of the loss, each with a mutant that breaks it alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vqtool.quantizers.routed import Router, balance

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def case(seed: int = 0, rows: int = 60, experts: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, the choice of the largest, and which windows count."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, experts, generator=generator) + torch.tensor([1.0, 0.0, 0.0][:experts])
    return logits, logits.argmax(1), torch.rand(rows, generator=generator) > 0.3


def even_load_is_one(loss: Loss) -> bool:
    probs = torch.full((60, 3), 0.1) + 0.7 * torch.eye(3).repeat(20, 1)
    return bool(torch.isclose(loss(probs, probs.argmax(1), torch.ones(60, dtype=torch.bool)), torch.tensor(1.0)))


def one_takes_all_is_r(loss: Loss) -> bool:
    probs = torch.eye(4)[:1].repeat(8, 1)
    return bool(torch.isclose(loss(probs, probs.argmax(1), torch.ones(8, dtype=torch.bool)), torch.tensor(4.0)))


def is_the_equation(loss: Loss) -> bool:
    """Fedus et al. 2021, equations 4 to 6, written out for windows that all count."""
    logits, chosen, _ = case(1)
    probs, total = logits.softmax(1), 0.0
    for r in range(3):
        f = sum(float(chosen[b] == r) for b in range(60)) / 60
        p = sum(float(probs[b, r]) for b in range(60)) / 60
        total += 3 * f * p
    return abs(float(loss(probs, chosen, torch.ones(60, dtype=torch.bool))) - total) < 1e-5


def others_do_not_count(loss: Loss) -> bool:
    logits, chosen, real = case(2)
    probs = logits.softmax(1)
    spoiled = torch.where(real[:, None], probs, torch.eye(3)[2])
    moved = torch.where(real, chosen, 2)
    whole, alone = loss(spoiled, moved, real), loss(probs[real], chosen[real], torch.ones(int(real.sum())).bool())
    return bool(torch.isclose(whole, alone))


def pushes_off_the_crowd(loss: Loss) -> bool:
    """Descent lowers the probability of the expert that most windows took, in every window."""
    logits, chosen, real = case(3)
    logits.requires_grad_()
    value = loss(logits.softmax(1), chosen, real | True)
    if not value.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(value, logits)
    return bool((gradient[:, chosen.bincount().argmax()] > 0).all())


LAWS = (even_load_is_one, one_takes_all_is_r, is_the_equation, others_do_not_count, pushes_off_the_crowd)


def mean_of(x: Tensor, real: Tensor) -> Tensor:
    return (x * real[:, None]).sum(0) / real.sum()


def share_of(chosen: Tensor, experts: int, real: Tensor) -> Tensor:
    return mean_of(torch.nn.functional.one_hot(chosen, experts).float(), real)


def without_r(probs: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    return balance(probs, chosen, real) / probs.shape[1]


def probabilities_alone(probs: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """R sum P^2: smooth, and blind to what was really taken."""
    return probs.shape[1] * mean_of(probs, real).square().sum()


def constant(probs: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    return balance(probs, chosen, real).detach()


def all_windows(probs: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    return balance(probs, chosen, torch.ones_like(real))


def entropy_of_use(probs: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """1 + KL(uniform || mean p), which other systems call balance; it has no largest value."""
    mean = mean_of(probs, real)
    return 1 - (mean * len(mean)).log().mean()


def upside_down(probs: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """The right value, the gradient of its negative."""
    value = balance(probs, chosen, real)
    return 2 * value.detach() - value


MUTANTS = {
    without_r: {"even_load_is_one", "one_takes_all_is_r", "is_the_equation"},
    probabilities_alone: {"is_the_equation"},
    constant: {"pushes_off_the_crowd"},
    upside_down: {"pushes_off_the_crowd"},
    all_windows: {"others_do_not_count"},
    entropy_of_use: {"one_takes_all_is_r", "is_the_equation"},
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_of_the_balance(law: Callable[[Loss], bool]) -> None:
    assert law(balance)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_mutant_of_the_balance_is_caught_by_the_laws_that_name_it(mutant: Loss) -> None:
    assert {law.__name__ for law in LAWS if not law(mutant)} == MUTANTS[mutant]


def test_every_law_has_a_mutant() -> None:
    assert set().union(*MUTANTS.values()) == {law.__name__ for law in LAWS}


def test_the_router_reads_real_tokens_only_and_knows_no_scale() -> None:
    torch.manual_seed(0)
    router, z = Router(6, 3), torch.randn(20, 9, 6)
    real = torch.rand(20, 9) > 0.4
    real[0] = False  # a window without any
    route = router(z * real[..., None], real)
    assert len(route.expert.unique()) == 3
    short = torch.stack([router(z[i : i + 1, real[i]], real[i : i + 1, real[i]]).expert_probs[0] for i in range(1, 20)])
    torch.testing.assert_close(route.expert_probs[1:], short)
    torch.testing.assert_close(router(1e3 * z * real[..., None], real).expert_probs, route.expert_probs)
    assert route.expert_probs.isfinite().all()
    assert torch.equal(route.expert, route.expert_probs.argmax(1))
