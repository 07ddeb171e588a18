"""Tests of the laws: priors with a planted bug, each of which breaks the laws that are there for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.priors import made
from vqtool.conformance import PRIOR_LAWS, PriorSubject, judge
from vqtool.layers import attention
from vqtool.parts.priors.gru import Gru
from vqtool.sequence import code_head, generation

SEEDS = range(8)  # a wrong beam finds the right codes now and then


LAWS = {law.id: law for law in PRIOR_LAWS}


def breaks(law: str, make: Callable, seeds=(0,), **shape) -> bool:
    """Whether a prior breaks a law for one seed at least."""
    return any(judge(LAWS[law], PriorSubject(make, seed=seed, **shape)).verdict.status == "broken" for seed in seeds)


class DeafToItself(Gru):
    def outputs(self, codes, condition=None, *, fed=None):
        return super().outputs(torch.zeros_like(codes), condition)


class DeafToOthers(Gru):
    def outputs(self, codes, condition=None, *, fed=None):
        return super().outputs(codes, None, fed=fed)


class Unmasked(Gru):
    def outputs(self, codes, condition=None, *, fed=None):
        logits, latents = super().outputs(codes, condition, fed=fed)
        return logits.clamp(min=-9.0), latents


class Levelled(Gru):
    def outputs(self, codes, condition=None, *, fed=None):
        logits, latents = super().outputs(codes, condition, fed=fed)
        return logits - 0.5 * torch.nan_to_num(logits, neginf=0.0).mean(0), latents


class Counting(Gru):
    def __init__(self, *wiring, **options):
        super().__init__(*wiring, **options)
        self.register_buffer("calls", torch.zeros(()))

    def outputs(self, codes, condition=None, *, fed=None):
        self.calls.add_(1)
        return super().outputs(codes, condition, fed=fed)


class Drawing(Gru):
    def outputs(self, codes, condition=None, *, fed=None):
        torch.rand(1)
        return super().outputs(codes, condition, fed=fed)


class Forgetful(Gru):
    def sample(self, batch, condition=None, *, prefix=None, **how):
        codes = super().sample(batch, condition, **how)
        if prefix is not None:
            codes[:, : prefix.shape[1]] = prefix
        return codes


class Hesitant(Gru):
    def sample(self, batch, condition=None, *, temperature=1.0, **how):
        return super().sample(batch, condition, temperature=1.5 * temperature, **how)


class WithoutTopK(Gru):
    def sample(self, batch, condition=None, *, top_k=None, **how):
        return super().sample(batch, condition, **how)


class Proud(Gru):
    def beam(self, batch, condition=None, *, width=8):
        codes, scores = super().beam(batch, condition, width=width)
        return codes, scores / self.length


CLASSES = {
    DeafToItself: "reads-its-past",
    DeafToOthers: "reads-its-condition",
    Unmasked: "sizes-kept",
    Levelled: "rows-apart",
    Counting: "scoring-is-pure",
    Drawing: "scoring-is-pure",
    Forgetful: "prefix-continued",
    Hesitant: "draws-are-the-distribution",
    WithoutTopK: "sharp-is-greedy",
    Proud: "beam-is-scored",
}
PATCHES = {"earlier-codes-only", "greedy-is-likeliest", "beam-finds", "samples-by-row", "no-share-is-teacher-forcing"}


def test_every_law_has_a_mutant():
    assert set(CLASSES.values()) | PATCHES == set(LAWS)


@pytest.mark.parametrize("mutant", CLASSES, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught_by_the_law_that_names_it(mutant):
    assert breaks(CLASSES[mutant], mutant)
    assert not breaks(CLASSES[mutant], Gru)


def test_attention_that_looks_ahead(monkeypatch):
    plain = F.scaled_dot_product_attention

    def open_attention(query, key, value, *, is_causal=False, **how):
        return plain(query, key, value, **how)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", open_attention)
    assert breaks("earlier-codes-only", made.KINDS["gpt"])


@pytest.mark.parametrize("kind", list(made.KINDS))
def test_inputs_that_are_not_shifted(kind, monkeypatch):
    shifted = code_head.CodeHead.inputs

    def unshifted(self, codes, start=0, stop=None):
        return shifted(self, codes, start, stop) + self._embed(codes).flatten(1, 2)[:, start:stop]

    monkeypatch.setattr(code_head.CodeHead, "inputs", unshifted)
    assert breaks("earlier-codes-only", made.KINDS[kind])


@pytest.mark.parametrize("kind", list(made.KINDS))
def test_a_sum_that_holds_its_own_code(kind, monkeypatch):
    def inclusive(self, codes):
        return self._look_up(self.vectors, codes).cumsum(2)

    monkeypatch.setattr(code_head.CodeHead, "partial", inclusive)
    assert breaks("earlier-codes-only", made.KINDS[kind])


def test_a_cache_that_forgets_its_newest_step(monkeypatch):
    def late(self, keys, values):
        found = whole(self, keys, values)
        self.length = max(self.length - 1, 1) if self.room else 0
        return found

    whole = attention.KeyValues.extend
    monkeypatch.setattr(attention.KeyValues, "extend", late)
    assert breaks("greedy-is-likeliest", made.KINDS["gpt"])


@pytest.mark.parametrize("kind", list(made.KINDS))
def test_beams_that_keep_the_wrong_past(kind, monkeypatch):
    state = type(made.small(kind).start(1, None))
    monkeypatch.setattr(state, "pick", lambda self, rows: None)
    assert breaks("beam-finds", made.KINDS[kind], SEEDS, codebook_sizes=(3, 3), length=2)


def test_beams_that_never_widen(monkeypatch):
    extend = generation._extend
    monkeypatch.setattr(generation, "_extend", lambda score, gained, width: extend(score, _best(gained), width))
    assert breaks("beam-finds", made.KINDS["gru"], SEEDS, codebook_sizes=(3, 3), length=2)


def _best(gained: torch.Tensor) -> torch.Tensor:
    return gained.masked_fill(gained < gained.amax(-1, keepdim=True), -torch.inf)


def test_one_generator_for_all_rows(monkeypatch):
    def shared(prior, batch, temperature, top_k, top_p, seeds):
        generator = torch.Generator().manual_seed(seeds[0] if seeds else 0)

        def choose(logits, step):
            probs = generation.probabilities(logits, max(temperature, 1e-9), top_k, top_p)
            return generation.pick(probs, torch.rand(len(probs), generator=generator, dtype=torch.float64))

        return choose

    monkeypatch.setattr(generation, "chooser", shared)
    assert breaks("samples-by-row", made.KINDS["gru"])


def test_an_own_share_of_zero_that_draws(monkeypatch):
    prior = made.KINDS["gpt"]
    own = prior.own

    def drawing(self, codes, condition, share, *, draw):
        torch.rand(1)
        return own(self, codes, condition, share, draw=draw)

    monkeypatch.setattr(prior, "own", drawing)
    assert breaks("no-share-is-teacher-forcing", prior)
