"""Tests of the tests: priors with a planted bug, each of which breaks the law that is there for it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.priors import laws
from vqtool.nn import attention, code_head, generation


def broken(law, *arguments) -> None:
    with pytest.raises(AssertionError):
        law(*arguments)


def broken_for_some_seed(law, kind, *arguments) -> None:
    """A wrong beam finds the right codes now and then."""

    def every_seed():
        for seed in range(8):
            law(laws.small(kind, (3, 3), 2, seed=seed), *arguments, seed)

    broken(every_seed)


def test_attention_that_looks_ahead(monkeypatch):
    plain = F.scaled_dot_product_attention

    def open_attention(query, key, value, *, is_causal=False, **how):
        return plain(query, key, value, **how)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", open_attention)
    broken(laws.causal, laws.small("gpt"), 2)


@pytest.mark.parametrize("kind", list(laws.KINDS))
def test_inputs_that_are_not_shifted(kind, monkeypatch):
    shifted = code_head.CodeHead.inputs

    def unshifted(self, codes, start=0, stop=None):
        return shifted(self, codes, start, stop) + self._embed(codes).flatten(1, 2)[:, start:stop]

    monkeypatch.setattr(code_head.CodeHead, "inputs", unshifted)
    broken(laws.causal, laws.small(kind), 2)


@pytest.mark.parametrize("kind", list(laws.KINDS))
def test_a_sum_that_holds_its_own_code(kind, monkeypatch):
    def inclusive(self, codes):
        return self._look_up(self.vectors, codes).cumsum(2)

    monkeypatch.setattr(code_head.CodeHead, "partial", inclusive)
    broken(laws.causal, laws.small(kind), 2)


def test_a_cache_that_forgets_its_newest_step(monkeypatch):
    def late(self, keys, values):
        found = whole(self, keys, values)
        self.length = max(self.length - 1, 1) if self.room else 0
        return found

    whole = attention.KeyValues.extend
    monkeypatch.setattr(attention.KeyValues, "extend", late)
    broken(laws.cached, laws.small("gpt"))


@pytest.mark.parametrize("kind", list(laws.KINDS))
def test_beams_that_keep_the_wrong_past(kind, monkeypatch):
    state = type(laws.small(kind).start(1, None))
    monkeypatch.setattr(state, "pick", lambda self, rows: None)
    broken_for_some_seed(laws.beam_searches, kind, 4)


def test_beams_that_never_widen(monkeypatch):
    extend = generation._extend
    monkeypatch.setattr(generation, "_extend", lambda score, gained, width: extend(score, _best(gained), width))
    broken_for_some_seed(laws.beam_searches, "gru", 4)


def _best(gained: torch.Tensor) -> torch.Tensor:
    return gained.masked_fill(gained < gained.amax(-1, keepdim=True), -torch.inf)


def test_one_generator_for_all_rows(monkeypatch):
    def shared(prior, batch, temperature, top_k, top_p, seeds):
        generator = torch.Generator().manual_seed(seeds[0])

        def choose(logits, step):
            probs = generation.probabilities(logits, temperature, top_k, top_p)
            return generation.pick(probs, torch.rand(batch, generator=generator, dtype=torch.float64))

        return choose

    monkeypatch.setattr(generation, "chooser", shared)
    prior = laws.small("gru")
    with pytest.raises(AssertionError):
        laws.samples_by_row(prior, [1, 2, 3, 4, 5, 6])


def test_an_own_share_of_zero_that_draws(monkeypatch):
    prior = laws.small("gpt")
    own = type(prior).own

    def drawing(self, codes, condition, share, *, draw):
        torch.rand(1)
        return own(self, codes, condition, share, draw=draw)

    monkeypatch.setattr(type(prior), "own", drawing)
    broken(laws.no_share_is_teacher_forcing, prior)
