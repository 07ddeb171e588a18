"""The laws of the priors, over kinds, codebooks, lengths and seeds; a cache changes nothing, from any prefix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.priors import made
from vqtool.conformance import PRIOR_LAWS, PriorSubject, require

KINDS = pytest.mark.parametrize("kind", list(made.KINDS))

seeds = st.integers(0, 10_000)
shapes = st.sampled_from([((4,), 3), ((3, 4), 2), ((2, 3, 2), 2), ((5, 2), 1)])  # few enough to score every sequence
few = settings(max_examples=5, deadline=None)


@KINDS
@pytest.mark.parametrize("law", PRIOR_LAWS, ids=lambda law: law.id)
def test_law(kind, law):
    require(law, PriorSubject(made.KINDS[kind]))


@KINDS
@pytest.mark.parametrize("law", PRIOR_LAWS, ids=lambda law: law.id)
@few
@given(shape=shapes, geometry=st.booleans(), condition_dim=st.sampled_from([0, 5]), seed=seeds)
def test_law_of_any_shape(kind, law, shape, geometry, condition_dim, seed):
    sizes, length = shape
    subject = PriorSubject(
        made.KINDS[kind], codebook_sizes=sizes, length=length, condition_dim=condition_dim, geometry=geometry,
        seed=seed, dtype=torch.float64,
    )  # fmt: skip
    require(law, subject)


@KINDS
@few
@given(shape=shapes, geometry=st.booleans(), seed=seeds)
@torch.no_grad()
def test_a_cache_changes_nothing(kind, shape, geometry, seed):
    """Step by step, from every prefix, alone or in a batch: the logits of one pass."""
    prior = made.small(kind, *shape, geometry=geometry, seed=seed)
    codes, condition = made.random_codes(prior, 3, seed), made.random_condition(3, seed)
    whole = made.flat_logits(prior, codes, condition)
    steps = whole.shape[1]
    for prefix in range(1, steps + 1):
        state, guess = prior.start(1, made.row(condition, 1), room=steps), prior.guess(1, made.row(condition, 1))
        bounds = [(0, prefix), *((n, n + 1) for n in range(prefix, steps))]
        for start, stop in bounds:
            hidden = prior.advance(prior.head.inputs(codes[1:2], start, stop), state)
            logits = prior.head.step(hidden[:, -1], codes[1:2], stop - 1, guess)
            logits = torch.where(logits.isfinite(), logits, 0.0)
            torch.testing.assert_close(logits, whole[1:2, stop - 1, : logits.shape[-1]], rtol=0, atol=1e-5)
