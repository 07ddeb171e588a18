"""Several paths from one prefix, and blocks laid out for writing: the same codes, by the same law."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.priors import made
from vqtool.layers.attention import Block, CompiledBlock, KeyValues
from vqtool.parts.priors.gpt import Gpt

few = settings(max_examples=8, deadline=None)


def plain(sizes=(7,), length=6, *, geometry=False, seed=0) -> Gpt:
    """A stirred transformer without a condition, in float64."""
    torch.manual_seed(seed)
    vectors = tuple(torch.randn(size, 5) for size in sizes) if geometry else None
    prior = Gpt(sizes, length, 0, vectors, layers=2, heads=2, width=16).double().eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return prior


@few
@given(
    shape=st.sampled_from([((7,), 6), ((3, 4), 3)]),
    geometry=st.booleans(),
    seed=st.integers(0, 99),
    rows=st.integers(1, 3),
)
@torch.no_grad()
def test_without_a_condition_the_cache_changes_nothing(shape, geometry, seed, rows):
    prior = plain(*shape, geometry=geometry, seed=seed)
    codes = made.random_codes(prior, rows, seed)
    whole, steps = made.flat_logits(prior, codes, None), prior.length * len(prior.codebook_sizes)
    for prefix in range(1, steps + 1):
        state, head = prior.start(rows, None, room=steps), prior.head.compiled()
        for start, stop in [(0, prefix), *((n, n + 1) for n in range(prefix, steps))]:
            hidden = prior.advance(head.inputs(codes, start, stop), state)
            logits = head.step(hidden[:, -1], codes, stop - 1)
            logits = torch.where(logits.isfinite(), logits, 0.0)
            torch.testing.assert_close(logits, whole[:, stop - 1, : logits.shape[-1]], rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_laid_out_block_is_the_block():
    torch.manual_seed(0)
    block = Block(16, 2, 0, 0.1).double().eval()
    for parameter in block.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    whole = block(x, KeyValues(), None, None)
    step = CompiledBlock(block, KeyValues(5))
    stepped = torch.stack([step(x[:, n]) for n in range(5)], dim=1)
    torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-12)


@few
@given(kind=st.sampled_from(sorted(made.KINDS)), tokens=st.integers(0, 2), paths=st.integers(1, 4))
def test_paths_are_what_as_many_rows_would_write(kind, tokens, paths):
    prior, condition = made.small(kind), made.random_condition(3)
    prefix = made.random_codes(prior, 3, seed=5)[:, :tokens]
    seeds = list(range(3 * paths))
    together = prior.sample(3, condition, seeds=seeds, prefix=prefix, paths=paths)
    each = made.Condition(*(part.repeat_interleave(paths, 0) for part in (condition.vector, condition.tokens)))
    apart = prior.sample(3 * paths, each, seeds=seeds, prefix=prefix.repeat_interleave(paths, 0))
    assert torch.equal(together, apart)


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"top_k": 2, "seeds": [1, 2]}])
def test_without_a_condition_a_row_is_alone_in_its_batch(how):
    prior = plain(geometry=True).float()
    together = prior.sample(2, **how)
    for row in range(2):
        alone = prior.sample(1, **(how | ({"seeds": [how["seeds"][row]]} if "seeds" in how else {})))
        assert torch.equal(alone[0], together[row])


def test_what_is_written_can_be_trained_on():
    """Codes come out of inference mode as tensors like any other."""
    prior = plain()
    codes = prior.sample(2, seeds=[1, 2])
    assert not codes.is_inference()
    prior.train()
    prior(codes).logsumexp(-1).mean().backward()
