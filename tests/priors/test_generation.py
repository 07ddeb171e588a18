"""Drawing codes: what is kept, how often a code comes, prefixes, and refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.priors import made
from vqtool.errors import VqtoolError
from vqtool.sequence import generation

logits_of = st.lists(st.floats(-8, 8), min_size=1, max_size=9).map(lambda v: torch.tensor([v]))


@given(logits=logits_of, top_p=st.floats(0.01, 1.0))
def test_the_nucleus_is_the_smallest_that_holds_top_p(logits, top_p):
    probs = generation.probabilities(logits, 1.0, None, top_p)[0]
    full = logits[0].double().softmax(-1)
    kept = probs > 0
    assert full[kept].sum() >= top_p - 1e-9
    if kept.sum() > 1:
        assert full[kept].sum() - full[kept].min() < top_p + 1e-9
    assert full[kept].min() >= full[~kept].max() if (~kept).any() else True
    torch.testing.assert_close(probs[kept], full[kept] / full[kept].sum())


@given(logits=logits_of, top_k=st.integers(1, 12), temperature=st.floats(0.1, 5))
def test_top_k_keeps_k(logits, top_k, temperature):
    probs = generation.probabilities(logits, temperature, top_k, None)[0]
    full = (logits[0].double() / temperature).softmax(-1)
    best = full.argsort(descending=True, stable=True)[:top_k]
    expected = torch.zeros_like(full)
    expected[best] = full[best] / full[best].sum()
    torch.testing.assert_close(probs, expected)


def test_codes_come_as_often_as_they_should():
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0]], dtype=torch.float64)
    even = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    counts = torch.bincount(generation.pick(probs.expand(10_000, -1), even), minlength=6)
    assert counts.tolist() == [0, 5000, 0, 3000, 2000, 0]


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_no_draw_gives_an_impossible_code(draw):
    probs = torch.tensor([[0.0, 0.1, 0.2, 0.7, 0.0]], dtype=torch.float64)
    assert generation.pick(probs, torch.tensor([draw], dtype=torch.float64)).item() in (1, 3)


def test_the_temperature_flattens():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    cold, warm = (generation.probabilities(logits, t, None, None)[0, 2] for t in (0.5, 2.0))
    assert cold > logits.softmax(-1)[0, 2] > warm


@pytest.mark.parametrize("kind", list(made.KINDS))
def test_a_prefix_stays_and_what_follows_is_the_same(kind):
    prior, condition, seeds = made.small(kind), made.random_condition(4), [5, 6, 7, 8]
    codes = prior.sample(4, condition, seeds=seeds)
    for tokens in range(prior.length + 1):
        again = prior.sample(4, condition, seeds=seeds, prefix=codes[:, :tokens])
        assert torch.equal(again, codes)
    other = (codes[:, :1] + 1) % torch.tensor(prior.codebook_sizes)
    assert torch.equal(prior.sample(4, condition, temperature=0, prefix=other)[:, :1], other)


def test_seeds_come_from_the_global_generator():
    prior, condition = made.small("gru"), made.random_condition(6)
    torch.manual_seed(1)
    first, second = prior.sample(6, condition), prior.sample(6, condition)
    torch.manual_seed(1)
    assert torch.equal(prior.sample(6, condition), first)
    assert not torch.equal(first, second)


def test_rows_of_a_long_beam_are_taken_in_turns(monkeypatch):
    prior, condition = made.small("gpt"), made.random_condition(5)
    codes, scores = prior.beam(5, condition, width=3)
    monkeypatch.setattr(generation, "LIVE", 8)
    again, rescored = prior.beam(5, condition, width=3)
    assert torch.equal(codes, again)
    torch.testing.assert_close(scores, rescored)


def test_the_greedy_path_survives_where_beams_prune_it():
    """Greedy starts with a code that many better-looking pairs push out of the beams, and wins in the end."""

    class Planned:
        """Log-probabilities of a planned tree: sure after code 0, three-way open after the others."""

        codebook_sizes, length = (4,), 3

        def __init__(self):
            self.head = self
            self.begin = torch.zeros(1)

        def start(self, batch, condition, room=0):
            self.pick = lambda rows: None
            return self

        def inputs(self, codes, start, stop):
            return codes[:, :, 0]

        def advance(self, inputs, state):
            return inputs[:, None].double()

        def guess(self, batch, condition):
            return None

        def step(self, hidden, codes, step, guess=None):
            first = torch.tensor([0.28, 0.26, 0.24, 0.22])
            spread = torch.tensor([0.4, 0.3, 0.2, 0.1])
            after_zero = torch.tensor([1.0, 0.0, 0.0, 0.0])
            sure = torch.tensor([0.97, 0.01, 0.01, 0.01])
            rows = []
            for path in hidden.long().tolist():
                if step == 0:
                    rows.append(first)
                elif step == 1:
                    rows.append(spread if path[0] == 0 else sure)
                else:
                    rows.append(after_zero if path[0] == 0 else torch.full((4,), 0.25))
            return torch.stack(rows).log()

    planned = Planned()
    codes, score = generation.beam(planned, 1, None, 3)
    assert codes.flatten().tolist() == [0, 0, 0]
    torch.testing.assert_close(score.exp(), torch.tensor([0.28 * 0.4], dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"seeds": [1]}, "seeds"),
        ({"prefix": torch.zeros(2, 9, 2, dtype=torch.long)}, "prefix"),
        ({"prefix": torch.full((2, 1, 2), 4)}, "prefix"),
    ],
)
def test_what_cannot_be_is_refused(how, says):
    with pytest.raises(VqtoolError, match=says):
        made.small("gru").sample(2, made.random_condition(2), **how)


def test_a_beam_needs_a_width():
    with pytest.raises(VqtoolError, match="width"):
        made.small("gru").beam(2, made.random_condition(2), width=0)
