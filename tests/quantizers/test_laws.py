"""Every quantizer that the catalog finds keeps every law, over widths, seeds and batch shapes."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vqtool.catalog import catalog
from vqtool.conformance import QUANTIZER_LAWS, Subject, judge, require

KINDS = catalog().names("quantizer")
SLOW = {"revival-holds", "revival-relative", "compiles", "exports", "unused-code-rests"}
GRAPHS = {"compiles", "exports"}  # slow, and the same for other options
FAST = [law for law in QUANTIZER_LAWS if law.id not in SLOW]
VARIANTS = {
    "residual-ema": {"level_dropout": 0.5, "levels": 3, "code_dim": 4},
    "residual-waterfill": {"beam": 3, "levels": 3},
    "product-ema": {"groups": 4},
    "product-gumbel": {"groups": 1, "codebook_size": 300, "logits": "distance"},  # wide enough for several chunks
    "ema": {"codebook_size": 300, "start": "random"},  # the two-stage minimum
    "soft": {"hard": 1.0, "temperature": 0.3},
    "fsq": {"levels": (4, 3, 2, 2, 2, 2, 2, 2)},  # as many as features: no linear maps
    "lfq": {"bits": 8},
}


@cache
def subject(kind: str) -> Subject:
    """One for all laws: it is started once."""
    return Subject(catalog().load("quantizer", kind))


@cache
def variant(kind: str) -> Subject:
    """The same of other options."""
    return Subject(catalog().load("quantizer", kind), options=VARIANTS[kind], seed=1)


@pytest.mark.parametrize("law", QUANTIZER_LAWS, ids=lambda law: law.id)
@pytest.mark.parametrize("kind", KINDS)
def test_law(kind, law):
    require(law, subject(kind))


@pytest.mark.parametrize("law", [law for law in QUANTIZER_LAWS if law.id not in GRAPHS], ids=lambda law: law.id)
@pytest.mark.parametrize("kind", [k for k in VARIANTS if k in KINDS])
def test_law_of_other_options(kind, law):
    require(law, variant(kind))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2)
@given(
    dim=st.sampled_from([2, 4, 12, 20]), seed=st.integers(0, 1000), batch=st.integers(3, 5), length=st.integers(24, 80)
)
@example(dim=4, seed=0, batch=4, length=33)
def test_fast_laws_of_any_shape(kind, dim, seed, batch, length):
    fewer = {"levels": 2} if kind.startswith("residual-") else {}
    shaped = Subject(catalog().load("quantizer", kind), dim=dim, options=fewer, seed=seed, batch=batch, length=length)
    for law in FAST:
        require(law, shaped)


def test_every_law_applies_to_some_quantizer():
    applied = {
        law.id for law in FAST for kind in ("ema", "gradient") if judge(law, subject(kind)).verdict.status == "kept"
    }
    assert applied == {law.id for law in FAST}
