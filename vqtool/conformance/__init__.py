"""The conformance kit: laws of quantizers and of priors, for `vqtool verify`, our own tests and plugins'.

In a plugin's tests:

    import pytest
    from vqtool.conformance import QUANTIZER_LAWS, Subject, require

    @pytest.mark.parametrize("law", QUANTIZER_LAWS, ids=lambda law: law.id)
    def test_law(law):
        require(law, Subject(MyQuantizer, dim=8))

and the same with PRIOR_LAWS and PriorSubject(MyPrior).
"""

from __future__ import annotations

from vqtool.conformance import forward_laws, gradient_laws, robustness_laws, update_laws
from vqtool.conformance.law import Law, Outcome, S, Verdict, judge, judge_all
from vqtool.conformance.prior_laws import PRIOR_LAWS
from vqtool.conformance.prior_subject import PriorSubject
from vqtool.conformance.stranger import Stranger, meet
from vqtool.conformance.stranger_laws import STRANGER_LAWS
from vqtool.conformance.subject import Subject

QUANTIZER_LAWS: tuple[Law[Subject], ...] = (
    *gradient_laws.LAWS,
    *update_laws.LAWS,
    *forward_laws.LAWS,
    *robustness_laws.LAWS,
)


def require(law: Law[S], subject: S) -> None:
    """Fail, with the figure and the mend, if `subject` breaks `law`."""
    verdict = judge(law, subject).verdict
    if verdict.status == "broken":
        raise AssertionError(f"{law.id}: {law.meaning}; {verdict.note} {verdict.figure}; mend: {law.mend}")


__all__ = [
    "PRIOR_LAWS",
    "QUANTIZER_LAWS",
    "STRANGER_LAWS",
    "Law",
    "Outcome",
    "PriorSubject",
    "Stranger",
    "Subject",
    "Verdict",
    "judge",
    "judge_all",
    "meet",
    "require",
]
