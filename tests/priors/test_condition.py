"""The condition of a prior: read in full at every step, any number of tokens, or missing."""

from __future__ import annotations

import pytest
import torch

from tests.priors import made
from vqtool.api import Condition
from vqtool.errors import VqtoolError
from vqtool.parts.priors.gpt import Gpt
from vqtool.sequence.code_prior import overlap

every = pytest.mark.parametrize("kind", list(made.KINDS))


@every
@pytest.mark.parametrize("part", ["vector", "tokens"])
def test_every_step_reads_all_of_the_condition(kind, part):
    prior = made.small(kind)
    codes, known = made.random_codes(prior, 1), made.random_condition(1)
    vector, tokens = known.vector.clone(), known.tokens.clone()
    if part == "vector":
        vector += 1.0
    else:
        tokens[:, -1] += 1.0  # the last one: the condition is not causal
    moved = made.flat_logits(prior, codes, known) - made.flat_logits(prior, codes, Condition(vector, tokens))
    assert bool((moved.abs().amax(-1) > 1e-9).all())


@every
def test_the_order_of_the_tokens_matters(kind):
    prior = made.small(kind, length=1)
    codes, known = made.random_codes(prior, 1), made.random_condition(1)
    turned = Condition(known.vector, known.tokens.flip(1))
    assert not torch.allclose(made.flat_logits(prior, codes, known), made.flat_logits(prior, codes, turned))


@every
def test_rows_do_not_touch_each_other(kind):
    prior = made.small(kind)
    codes, known = made.random_codes(prior, 3), made.random_condition(3)
    alone = made.flat_logits(prior, codes[1:2], made.row(known, 1))
    torch.testing.assert_close(made.flat_logits(prior, codes, known)[1:2], alone)


@every
def test_a_short_sequence_is_the_start_of_a_long_one(kind):
    prior = made.small(kind)
    codes, known = made.random_codes(prior, 2), made.random_condition(2)
    torch.testing.assert_close(prior(codes[:, :2], known), prior(codes, known)[:, :2])


@every
def test_every_parameter_is_trained_with_or_without_tokens(kind):
    prior = made.small(kind)
    codes, known = made.random_codes(prior, 2), made.random_condition(2)
    for condition in (known, Condition(known.vector), None):
        loss = prior(codes, condition).log_softmax(-1).gather(-1, codes[..., None]).sum()
        gradients = torch.autograd.grad(loss, list(prior.parameters()), allow_unused=True)
        assert all(g is not None for g in gradients)


def test_no_condition_at_all():
    prior = Gpt((4, 3), 3, layers=1, width=16).eval()
    codes, scores = prior.beam(2, width=4)
    assert torch.equal(codes[0], codes[1])
    torch.testing.assert_close(scores, made.log_prob(prior, codes, None).double(), rtol=0, atol=1e-5)


def test_overlap_shares_a_window_out():
    for length, positions in [(4, 4), (3, 7), (8, 2), (1, 5), (5, 1)]:
        shares = overlap(length, positions)
        torch.testing.assert_close(shares.sum(1), torch.ones(length))
        torch.testing.assert_close(shares.sum(0), torch.full((positions,), length / positions))
    torch.testing.assert_close(overlap(4, 4), torch.eye(4))
    torch.testing.assert_close(overlap(2, 4)[0], torch.tensor([0.5, 0.5, 0.0, 0.0]))


def test_heads_must_divide_the_width():
    with pytest.raises(VqtoolError, match="multiple"):
        Gpt((4,), 3, width=30, heads=4)


@every
def test_it_learns_what_the_condition_says(kind):
    torch.manual_seed(0)
    vectors = (torch.randn(4, 6), 0.3 * torch.randn(4, 6))
    prior = made.KINDS[kind]((4, 4), 2, 4, vectors, layers=1, width=32, dropout=0.0)
    codes = torch.randint(4, (64, 2, 2))
    codes[:, 1, 0] = (codes[:, 0, 1] + 1) % 4  # from the past
    one_hot = torch.nn.functional.one_hot(codes[:, 0, 0], 4).float()  # from the condition
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(60):
        logits = prior(codes, Condition(one_hot))
        loss = -logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    prior.eval()
    right = (prior(codes, Condition(one_hot)).argmax(-1) == codes).float().mean(0)
    assert right[0, 0] > 0.95
    assert right[1, 0] > 0.95
