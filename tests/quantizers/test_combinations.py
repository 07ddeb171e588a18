"""Every law holds for every topology over every kind, nested ones as well."""

from __future__ import annotations

import pytest

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
