"""Hidden spans: their share against theory, their lengths, and that they come from torch's generator."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vqtool.sequence.spans import hidden_spans


def covered(tokens: int, share: float, span: int) -> float:
    """The share hidden on average: 1 - C(S - c, n) / C(S, n) for n of S starts, c of which lie over a token."""
    starts = tokens - span + 1
    wanted = share * tokens / span
    total = 0.0
    for count, chance in ((int(wanted), 1 - wanted % 1), (int(wanted) + 1, wanted % 1)):
        for token in range(tokens):
            over = min(token, starts - 1) - max(0, token - span + 1) + 1
            missed = 1.0
            for drawn in range(count):
                missed *= max(0, starts - over - drawn) / (starts - drawn)
            total += chance * (1 - missed)
    return total / tokens


@pytest.mark.parametrize(("tokens", "share", "span"), [(90, 0.65, 6), (749, 0.65, 10), (40, 0.3, 5), (30, 0.5, 1)])
def test_the_share_hidden_is_that_of_theory(tokens: int, share: float, span: int) -> None:
    torch.manual_seed(0)
    measured = float(hidden_spans(3000, tokens, share=share, span=span).float().mean())
    assert measured == pytest.approx(covered(tokens, share, span), abs=0.004)


def test_the_share_of_wav2vec() -> None:
    assert covered(749, 0.65, 10) == pytest.approx(0.491, abs=5e-4)  # measured on fairseq's own function


@given(st.integers(2, 60), st.integers(1, 12), st.floats(0.01, 1.0))
def test_every_hidden_token_lies_in_a_whole_span(tokens: int, span: int, share: float) -> None:
    hidden = hidden_spans(5, tokens, share=share, span=span)
    assert hidden.shape == (5, tokens)
    assert hidden.any(1).all()
    for row in hidden.int().tolist():
        runs = [len(run) for run in "".join(map(str, row)).split("0") if run]
        assert min(runs) >= min(span, tokens)


def test_rows_differ_and_a_seed_repeats_them() -> None:
    torch.manual_seed(1)
    first = hidden_spans(4, 50, share=0.65, span=6)
    assert len({tuple(row) for row in first.tolist()}) == 4
    torch.manual_seed(1)
    assert torch.equal(first, hidden_spans(4, 50, share=0.65, span=6))
