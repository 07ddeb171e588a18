"""Every measure against brute force or a closed form."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtool.diagnosis import measures as m

counts_lists = st.lists(st.integers(0, 50), min_size=2, max_size=40)


@given(counts_lists)
def test_entropy_and_perplexity_are_those_of_the_tokens(counts: list[int]) -> None:
    total = sum(counts)
    bits = -sum(n / total * math.log2(n / total) for n in counts if n) if total else 0.0
    assert m.entropy(counts) == pytest.approx(bits, abs=1e-12)
    assert m.perplexity(counts) == pytest.approx(2**bits if total else 0.0)


@given(counts_lists)
def test_gini_is_the_mean_difference_of_two_codes(counts: list[int]) -> None:
    differences = np.abs(np.subtract.outer(counts, counts)).mean()
    assert m.gini(counts) == pytest.approx(differences / (2 * np.mean(counts)) if sum(counts) else 0.0)


def test_use_in_closed_form() -> None:
    even = m.usage([10] * 16)
    assert even["perplexity"] == pytest.approx(16)
    assert even["entropy_bits"] == pytest.approx(4)
    assert even["gini"] == 0
    assert even["dead"] == 0
    assert even["spread"] == pytest.approx(1, rel=1e-3)
    one = m.usage([160] + [0] * 15)
    assert one["perplexity"] == 1
    assert one["spread"] == 0
    assert one["hottest"] == 1
    assert one["gini"] == pytest.approx(15 / 16)
    assert one["dead"] == 15
    assert one["hottest_10"] == 1
    nothing = m.usage([0] * 4)
    assert nothing["perplexity"] == nothing["dead_share"] == 0


@pytest.mark.parametrize(("size", "tokens"), [(8, 3), (32, 40), (1024, 500)])
def test_the_codes_that_uniform_use_would_hit(size: int, tokens: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [len(set(rng.integers(size, size=tokens).tolist())) for _ in range(2000)]
    assert m.expected_used(size, tokens) == pytest.approx(np.mean(drawn), rel=0.02)


def test_chance_alone_makes_no_code_dead() -> None:
    """Skewed use of living codes, and so few tokens that many are not hit; then with half of the codes truly dead."""
    rng = np.random.default_rng(0)
    skewed = 0.98 ** np.arange(128)
    results = [m.usage(rng.multinomial(600, skewed / skewed.sum())) for _ in range(200)]
    assert np.mean([u["dead"] for u in results]) > 10
    assert np.mean([u["dead_share"] for u in results]) < 0.04
    half = np.where(np.arange(128) < 64, skewed, 0)
    results = [m.usage(rng.multinomial(600, half / half.sum())) for _ in range(200)]
    assert np.mean([u["dead_share"] for u in results]) == pytest.approx(0.5, abs=0.02)
    assert m.alive([5, 1, 1, 1, 2, 0, 0, 0]) == 5 + 3 * 2 / (2 * 2)
    assert m.alive([1] * 8) == 8


@given(st.integers(0, 99))
def test_joint_use_counts_tuples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 4, (60, 3))
    real = [tuple(row) for row in codes.tolist() if min(row) >= 0]
    result = m.joint_usage(codes)
    if not real:
        assert result == {}
        return
    share = np.array(list(Counter(real).values())) / len(real)
    assert result["joint.used"] == len(set(real))
    assert result["joint.entropy_bits"] == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9)


def test_equal_codebooks_are_redundant_and_independent_ones_are_not() -> None:
    same = np.repeat(np.arange(8), 10)[:, None].repeat(2, 1)
    assert m.joint_usage(same)["joint.redundancy_bits"] == pytest.approx(3)
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2)
    assert m.joint_usage(grid)["joint.redundancy_bits"] == pytest.approx(0, abs=1e-9)


@given(st.integers(0, 99))
def test_sequences_against_a_walk_over_each_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 3, (5, 12))
    pairs = [(a, b) for row in codes.tolist() for a, b in pairwise(row) if a >= 0 and b >= 0]
    result = m.sequences(codes)
    if not pairs:
        assert result == {}
        return
    longest = 0
    for row in codes.tolist():
        run, before = 0, None
        for code in row:
            run = 0 if code < 0 else run + 1 if code == before else 1
            before, longest = code, max(longest, run)
    assert result["sequence.longest_repeat"] == longest
    assert result["sequence.repeated"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    firsts = Counter(a for a, _ in pairs)
    given_bits = -sum(n / len(pairs) * math.log2(n / firsts[a]) for (a, _), n in Counter(pairs).items())
    assert result["sequence.bigram_bits"] == pytest.approx(given_bits, abs=1e-9)


def test_a_single_token_a_window_has_no_sequence() -> None:
    assert m.sequences(np.zeros((4, 1), dtype=np.int64)) == {}


@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 99))
def test_neighbour_distances_against_all_pairs(size: int, dim: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(size, dim)) + 1e4
    far = np.linalg.norm(rows[:, None] - rows[None], axis=-1) + np.diag([np.inf] * size)
    np.testing.assert_allclose(m.neighbour_distances(rows), far.min(1), rtol=1e-6)


def test_neighbour_distances_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3))
    whole = m.neighbour_distances(rows)
    monkeypatch.setattr(m, "CHUNK", 700)
    np.testing.assert_array_equal(m.neighbour_distances(rows), whole)


@pytest.mark.parametrize("doubled", [0, 5, 20])
def test_twins_are_found_also_where_most_codes_are(doubled: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(32, 6))
    rows[:doubled] = rows[-1] + 1e-4 * rng.normal(size=(doubled, 6))
    distances = m.neighbour_distances(rows)
    found = distances <= m.twin_radius(rows, distances)
    assert found[:doubled].all()
    assert found.sum() == (doubled + 1 if doubled else 0)


def doubled(rows: np.ndarray, share: float, noise: float = 0.0) -> np.ndarray:
    """`rows` [K, d] whose first `share` are the first of them, or every second the one before it, but for `noise`."""
    same = rows[: len(rows) // 2].repeat(2, 0) if share == 0 else rows.copy()
    same[: round(share * len(rows))] = rows[0]
    return same + noise * np.random.default_rng(1).normal(size=rows.shape)


@pytest.mark.parametrize("dim", [2, 8, 64])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize(("share", "twins"), [(0.0, 1.0), (0.5, 0.5), (0.75, 0.75), (0.9, 0.9)])
def test_twins_are_found_also_where_nearly_every_code_is_one(
    share: float, twins: float, noise: float, dim: int
) -> None:
    rows = np.random.default_rng(0).normal(size=(200, dim))
    for offset in (0.0, 100.0):
        found = m.geometry(doubled(rows, share, noise) + offset)["duplicate_share"]
        assert found == pytest.approx(twins, abs=0.02)
        assert m.geometry(rows + offset)["duplicate_share"] < 0.05


@pytest.mark.parametrize("row", [0.0, 1.0, 1e-6, 1e6])
def test_codes_that_are_all_the_same_are_all_twins(row: float) -> None:
    rows = np.full((64, 4), row, dtype=np.float32)
    assert m.geometry(rows)["duplicates"] == 64
    rows[::2] *= 1 + 1e-7  # but for rounding
    assert m.geometry(rows)["duplicates"] == 64


@given(st.integers(1, 400), st.integers(1, 3), st.floats(0, 2), st.integers(0, 99))
def test_distinct_rows_cover_the_others_and_are_apart(size: int, dim: int, radius: float, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(size, dim)).round(1)
    kept = m.distinct(rows, radius) + rows.mean(0)
    between = np.linalg.norm(kept[:, None] - kept[None], axis=-1) + np.diag([np.inf] * len(kept))
    assert between.min() > radius - 1e-6
    assert np.linalg.norm(rows[:, None] - kept[None], axis=-1).min(1).max() <= radius + 1e-6


def test_twins_among_dead_codes_do_not_count() -> None:
    rng = np.random.default_rng(0)
    rows, counts = rng.normal(size=(16, 4)), np.full(16, 9)
    rows[8:], counts[8:] = rows[8], 0
    assert m.geometry(rows, counts)["duplicates"] == 0
    assert m.geometry(rows)["duplicates"] == 8
    far = np.concatenate([rows[:8], 1e3 * rng.normal(size=(8, 4))])  # the dead lie far away, the living are well
    assert m.geometry(far, counts)["duplicates"] == 0


def test_effective_rank_of_a_plane_and_of_a_ball() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(400, 2)) @ np.linalg.qr(rng.normal(size=(8, 8)))[0][:2]
    assert m.effective_rank(flat) == pytest.approx(2, rel=0.01)
    assert m.effective_rank(rng.normal(size=(4000, 8))) == pytest.approx(8, rel=0.01)
    values = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    p = values[values > 1e-9] / values.sum()
    assert m.effective_rank(flat) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    assert m.effective_rank(np.ones((4, 3))) == 0


def test_drift_is_relative_to_the_spread() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 4))
    assert m.drift(rows, rows) == 0
    spread = math.sqrt(np.square(rows - rows.mean(0)).sum(1).mean())
    assert m.drift(rows + 100, rows + 100.5) == pytest.approx(0.5 * 2 / spread)
    assert m.drift(np.zeros((2, 2)), np.ones((2, 2))) == math.inf


def statistics(x: np.ndarray, code: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, errors and offsets [K], the slow way."""
    size = len(vectors)
    counts = np.array([(code == k).sum() for k in range(size)])
    errors = np.array([np.square(x[code == k] - vectors[k]).sum() for k in range(size)])
    offsets = np.array([np.square(x[code == k].mean(0) - vectors[k]).sum() if (code == k).any() else 0.0
                        for k in range(size)])  # fmt: skip
    return counts, errors, offsets


def test_lag_is_the_share_of_the_error_that_moving_the_codes_would_save() -> None:
    rng = np.random.default_rng(0)
    true = 10 * rng.normal(size=(6, 3))
    code = rng.integers(6, size=3000)
    x = true[code] + rng.normal(size=(3000, 3))
    assert m.lag(*statistics(x, code, true)) == pytest.approx(0, abs=0.01)
    behind = true + 1.0
    saved = 1 - np.square(x - true[code]).sum() / np.square(x - behind[code]).sum()
    assert m.lag(*statistics(x, code, behind)) == pytest.approx(saved, abs=0.02)
    few = slice(0, 18)  # three inputs a code: their means are off by chance, which is no lag
    assert m.lag(*statistics(x[few], code[few], true)) < 0.2
    assert m.lag([0, 1], [0.0, 5.0], [0.0, 5.0]) == 0


def test_decibels_and_folded_ratios() -> None:
    assert m.decibels(100, 1) == 20
    assert m.decibels(1, 0) == 200
    assert m.decibels(0, 1) == -200
    assert m.decibels(0, 0) == 0
    assert m.folded(0.5) == m.folded(2) == 0.5
    assert m.folded(-1) == m.folded(math.nan) == m.folded(math.inf) == 0


def test_thirds() -> None:
    assert m.thirds([9, 8, 7, 5, 5, 5, 1, 2, 3]) == (8, 2)
    assert m.thirds([4.0]) == (4, 4)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_quantile_is_numpy_s(values: list[float], share: float) -> None:
    assert m.quantile(values, share) == pytest.approx(np.quantile(values, share), rel=1e-9, abs=1e-9)
