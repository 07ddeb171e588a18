"""Every law has its words, and every word a law."""

from __future__ import annotations

from vqtool.conformance import FOREIGN_LAWS, PRIOR_LAWS, QUANTIZER_LAWS
from vqtool.conformance.words import WORDS


def test_laws_and_words_match():
    assert {law.id for law in (*QUANTIZER_LAWS, *PRIOR_LAWS, *FOREIGN_LAWS)} == set(WORDS)
    for laws in (QUANTIZER_LAWS, PRIOR_LAWS, FOREIGN_LAWS):
        assert len({law.id for law in laws}) == len(laws)
    assert all(law.meaning and law.harm and law.fix and "\n" not in law.fix for law in (*QUANTIZER_LAWS, *PRIOR_LAWS))
