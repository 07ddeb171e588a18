"""The README's table is what the laws say, and every kind gives what vqtool's contract asks for."""

import re
from pathlib import Path

import pytest
import torch

from vqtool.catalog import catalog
from vqtool.conformance import QUANTIZER_LAWS, Subject, judge_all
from vqtool_bridge import KINDS

TABLE = dict(
    re.findall(
        r"^\| `(vqp-[a-z-]+)` \| \d+ \| \d+ \| (.*) \|$", (Path(__file__).parents[1] / "README.md").read_text(), re.M
    )
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_broken_laws_are_reported(kind):
    outcomes = judge_all(QUANTIZER_LAWS, Subject(catalog().load("quantizer", kind)))
    broken = {o.law.id for o in outcomes if o.verdict.status == "broken"}
    assert broken == set(re.findall(r"`([a-z-]+)`", TABLE[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind):
    quantizer = catalog().load("quantizer", kind)(8).eval()
    q = quantizer(torch.randn(2, 5, 8))
    assert q.z.shape == (2, 5, 8)
    assert q.codes.shape == (2, 5, len(quantizer.codebook_sizes))
    assert (q.codes.amax((0, 1)) < torch.tensor(quantizer.codebook_sizes)).all()
    assert q.terms["vqp"].ndim == 0
    torch.testing.assert_close(quantizer.decode(q.codes), q.hard, atol=1e-5, rtol=1e-4)
