"""Agreement of codes and labels: its ends, the null that keeps time, and why the adjusted figure is wanted."""

from __future__ import annotations

import numpy as np

from vqtool.analysis.agreement import agreement, agreements, joint, rolled

RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(8), 100)
LABELS = np.tile(np.repeat([0, 1, 2], [60, 20, 20]), 8)


def test_codes_that_are_the_labels_and_codes_that_are_nothing() -> None:
    same = agreements(LABELS[:, None], LABELS, GROUPS)
    assert abs(same["nmi"] - 1) < 1e-9
    assert abs(same["ami"] - 1) < 1e-9
    assert same["nmi.rolled"] < 0.5
    nothing = agreements(RNG.integers(300, size=(800, 1)), LABELS, GROUPS)
    assert nothing["nmi"] > 0.1  # many rare codes agree with anything
    assert abs(nothing["ami"]) < 0.03


def test_every_codebook_and_the_joint_code_are_reported() -> None:
    codes = np.stack([LABELS == 1, LABELS == 2], 1).astype(np.int64)
    result = agreements(codes, LABELS, GROUPS)
    assert set(result) == {
        f"{f}{r}{g}" for f in ("nmi", "ami") for r in ("", ".rolled") for g in ("", ".group0", ".group1")
    }
    assert result["ami"] > 0.999 > max(result["ami.group0"], result["ami.group1"])


def test_the_null_keeps_each_group_s_labels_and_their_order() -> None:
    moved = rolled(LABELS, GROUPS, np.random.default_rng(1))
    assert not np.array_equal(moved, LABELS)
    for group in range(8):
        own, was = moved[group == GROUPS], LABELS[group == GROUPS]
        assert sorted(own) == sorted(was)
        assert any(np.array_equal(np.roll(was, k), own) for k in range(10, 90))


def test_the_null_sees_what_time_alone_gives() -> None:
    slow = (np.tile(np.arange(100), 8) // 50)[:, None]  # a code for each half of a record: no look at the label
    result = agreements(slow, LABELS, GROUPS)
    shuffled = agreement(slow[:, 0], RNG.permutation(LABELS))
    assert shuffled["nmi"] < 0.02 < result["nmi.rolled"]


def test_joint_codes_are_as_many_as_there_are_pairs() -> None:
    assert len(np.unique(joint(np.array([[0, 0], [0, 1], [1, 0], [0, 1]])))) == 3
