"""Every law has its words, and every word a law."""

from __future__ import annotations

from vqtool.conformance import PRIOR_LAWS, QUANTIZER_LAWS, STRANGER_LAWS
from vqtool.conformance.words import WORDS


def test_laws_and_words_match():
    assert {law.id for law in (*QUANTIZER_LAWS, *PRIOR_LAWS, *STRANGER_LAWS)} == set(WORDS)
    for laws in (QUANTIZER_LAWS, PRIOR_LAWS, STRANGER_LAWS):
        assert len({law.id for law in laws}) == len(laws)
    assert all(law.meaning and law.harm and law.mend and "\n" not in law.mend for law in (*QUANTIZER_LAWS, *PRIOR_LAWS))
