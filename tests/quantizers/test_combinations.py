"""Every law holds for every topology over every kind, nested ones as well."""

from __future__ import annotations

import pytest
import torch

from tests.quantizers.combinations import all_combinations, subject
from vqtool.conformance import QUANTIZER_LAWS, require

ALL = all_combinations()
SLOW = {"revival-holds", "revival-relative", "compiles", "exports", "unused-code-rests"}
EVERY = 12  # of the slow laws only every so many combinations; all of them: python -m tests.quantizers.combinations


def test_there_are_many() -> None:
    assert len(ALL) >= 60


@pytest.mark.parametrize("name", ALL)
def test_the_laws(name: str) -> None:
    one = subject(ALL[name])
    for law in QUANTIZER_LAWS:
        if law.id not in SLOW:
            require(law, one)


@pytest.mark.parametrize("name", list(ALL)[::EVERY])
def test_the_slow_laws(name: str) -> None:
    one = subject(ALL[name])
    for law in QUANTIZER_LAWS:
        if law.id in SLOW:
            require(law, one)


def test_codes_add_up_where_promised() -> None:
    """What `additive` promises a channel, which sends the codes of each codebook by themselves."""
    promised = set()
    for name, make in ALL.items():
        torch.manual_seed(0)
        quantizer = make(8)
        quantizer.train()(torch.randn(4, 40, 8))
        codes = quantizer.eval()(torch.randn(2, 9, 8)).codes
        if not quantizer.additive:
            continue
        promised.add(name)
        alone = [codes.where(torch.arange(codes.shape[-1]) == q, -1) for q in range(codes.shape[-1])]
        torch.testing.assert_close(sum(quantizer.decode(one) for one in alone), quantizer.decode(codes), msg=name)
    assert {"lfq", "grouped of lfq", "grouped of fsq", "residual of vq", "inside of vq"} <= promised
