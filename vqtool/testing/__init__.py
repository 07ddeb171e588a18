"""The conformance kit: laws that every quantizer must keep, for `vqtool verify`, our own tests and plugins'.

In a plugin's tests:

    import pytest
    from vqtool.testing import QUANTIZER_LAWS, Subject, require

    @pytest.mark.parametrize("law", QUANTIZER_LAWS, ids=lambda law: law.id)
    def test_law(law):
        require(law, Subject(MyQuantizer, dim=8))
"""

from __future__ import annotations

from vqtool.testing import forward_laws, gradient_laws, robustness_laws, update_laws
from vqtool.testing.law import Law, Outcome, Verdict, judge, judge_all
from vqtool.testing.stranger import Stranger, meet
from vqtool.testing.stranger_laws import STRANGER_LAWS
from vqtool.testing.subject import Subject

QUANTIZER_LAWS: tuple[Law[Subject], ...] = (
    *gradient_laws.LAWS,
    *update_laws.LAWS,
    *forward_laws.LAWS,
    *robustness_laws.LAWS,
)


def require(law: Law[Subject], subject: Subject) -> None:
    """Fail, with the figure and the mend, if `subject` breaks `law`."""
    verdict = judge(law, subject).verdict
    if verdict.status == "broken":
        raise AssertionError(f"{law.id}: {law.meaning}; {verdict.note} {verdict.figure}; mend: {law.mend}")


__all__ = [
    "QUANTIZER_LAWS",
    "STRANGER_LAWS",
    "Law",
    "Outcome",
    "Stranger",
    "Subject",
    "Verdict",
    "judge",
    "judge_all",
    "meet",
    "require",
]
