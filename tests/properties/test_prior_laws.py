"""The laws of the priors, over kinds, codebooks, lengths and seeds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.priors import laws

pytestmark = pytest.mark.parametrize("kind", list(laws.KINDS))

seeds = st.integers(0, 10_000)
shapes = st.sampled_from([((4,), 3), ((3, 4), 2), ((2, 3, 2), 3), ((5, 2), 1)])
few = settings(max_examples=5, deadline=None)


@few
@given(data=st.data(), shape=shapes, geometry=st.booleans(), seed=seeds)
def test_logits_read_only_earlier_codes(kind, data, shape, geometry, seed):
    sizes, length = shape
    prior = laws.small(kind, sizes, length, geometry=geometry, seed=seed)
    laws.causal(prior, data.draw(st.integers(0, len(sizes) * length - 1)), seed)


@few
@given(shape=shapes, geometry=st.booleans(), seed=seeds)
def test_a_cache_changes_nothing(kind, shape, geometry, seed):
    laws.cached(laws.small(kind, *shape, geometry=geometry, seed=seed), seed)


@few
@given(
    shape=st.sampled_from([((4,), 3), ((2, 3), 2), ((2, 2, 2), 1)]),
    geometry=st.booleans(),
    width=st.integers(2, 5),
    seed=seeds,
)
def test_beam_search(kind, shape, geometry, width, seed):
    laws.beam_searches(laws.small(kind, *shape, geometry=geometry, seed=seed), width, seed)


@few
@given(
    rows=st.lists(seeds, min_size=1, max_size=4),
    temperature=st.floats(0.3, 3.0),
    top_k=st.none() | st.integers(1, 9),
    top_p=st.none() | st.floats(0.1, 1.0),
)
def test_a_sample_follows_from_its_own_seed(kind, rows, temperature, top_k, top_p):
    laws.samples_by_row(laws.small(kind), rows, temperature=temperature, top_k=top_k, top_p=top_p)


@few
@given(shape=shapes, geometry=st.booleans(), seed=seeds)
def test_sharp_sampling_is_greedy(kind, shape, geometry, seed):
    laws.sharp_sampling_is_greedy(laws.small(kind, *shape, geometry=geometry, seed=seed), seed)


@few
@given(shape=shapes, geometry=st.booleans(), seed=seeds)
def test_no_own_tokens_is_teacher_forcing(kind, shape, geometry, seed):
    laws.no_share_is_teacher_forcing(laws.small(kind, *shape, geometry=geometry, seed=seed), seed)
