"""Scheduled sampling: which codes are replaced, and by what."""

from __future__ import annotations

import pytest
import torch

from tests.priors import made

recurrent = pytest.mark.parametrize("kind", ["gru", "lstm"])
every = pytest.mark.parametrize("kind", list(made.KINDS))


@recurrent
def test_a_share_of_one_is_what_greedy_writing_gives(kind):
    prior, condition = made.small(kind), made.random_condition(4)
    codes = made.random_codes(prior, 4)
    fed = prior.own(codes, condition, 1.0, draw=torch.rand(codes.shape))
    assert torch.equal(fed, prior.sample(4, condition, temperature=0))
    assert not torch.equal(fed, codes)


@recurrent
def test_an_own_code_follows_the_past_that_is_fed(kind):
    prior, condition = made.small(kind), made.random_condition(4)
    codes = made.random_codes(prior, 4)
    draw = torch.rand(codes.shape, generator=torch.Generator().manual_seed(3))
    fed = prior.own(codes, condition, 0.5, draw=draw)
    own = prior(fed, condition).argmax(-1)
    assert torch.equal(fed, torch.where(draw < 0.5, own, codes))


def test_the_transformer_takes_its_teacher_forced_answers():
    prior, condition = made.small("gpt"), made.random_condition(4)
    codes = made.random_codes(prior, 4)
    draw = torch.rand(codes.shape, generator=torch.Generator().manual_seed(3))
    own = prior(codes, condition).argmax(-1)
    prior.train()
    fed = prior.own(codes, condition, 0.5, draw=draw)
    assert torch.equal(fed, torch.where(draw < 0.5, own, codes))
    assert not torch.equal(fed, codes)


@every
def test_own_leaves_modes_and_random_numbers_alone(kind):
    prior = made.small(kind).train()
    prior.drop.eval()
    codes, condition = made.random_codes(prior, 2), made.random_condition(2)
    state = torch.get_rng_state()
    fed = prior.own(codes, condition, 0.7, draw=torch.zeros(codes.shape))
    assert torch.equal(torch.get_rng_state(), state)
    assert prior.training
    assert not prior.drop.training
    assert not fed.is_floating_point()


@every
def test_masked_codes_stay_masked_and_read_as_nothing(kind):
    prior, condition = made.small(kind), made.random_condition(2)
    codes = made.random_codes(prior, 2)
    codes[:, 1, 1] = -1
    fed = prior.own(codes, condition, 1.0, draw=torch.zeros(codes.shape))
    assert torch.equal(fed == -1, codes == -1)
    assert not torch.isnan(prior(codes, condition)).any()


@every
def test_what_is_fed_is_the_past_and_not_the_answer(kind):
    prior, condition = made.small(kind), made.random_condition(2)
    codes, fed = made.random_codes(prior, 2, seed=0), made.random_codes(prior, 2, seed=1)
    assert torch.equal(prior(codes, condition, fed=fed), prior(fed, condition))
