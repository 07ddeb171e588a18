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

from vqtool.conformance import (
    codebook_choice,
    codebook_motion,
    foreign_habits,
    foreign_laws,
    forward_laws,
    gradient_laws,
    loss_direction,
    prior_laws,
    robustness_laws,
    update_laws,
)
from vqtool.conformance.foreign_module import ForeignModule
from vqtool.conformance.interface import infer_interface
from vqtool.conformance.law import Law, Outcome, S, Verdict, judge, judge_all
from vqtool.conformance.prior_subject import PriorSubject
from vqtool.conformance.report import Report, report_on, report_on_module
from vqtool.conformance.subject import Subject

QUANTIZER_LAWS = (*gradient_laws.LAWS, *update_laws.LAWS, *forward_laws.LAWS, *robustness_laws.LAWS)
PRIOR_LAWS = tuple(prior_laws.LAWS)
FOREIGN_LAWS = (
    *foreign_laws.LAWS,
    *loss_direction.LAWS,
    *codebook_choice.LAWS,
    *codebook_motion.LAWS,
    *foreign_habits.LAWS,
)


def require(law: Law[S], subject: S) -> None:
    """Fail, with the figure and the fix, if `subject` breaks `law`."""
    verdict = judge(law, subject).verdict
    if verdict.status == "broken":
        raise AssertionError(f"{law.id}: {law.meaning}; {verdict.note} {verdict.figure}; fix: {law.fix}")


__all__ = [
    "FOREIGN_LAWS",
    "PRIOR_LAWS",
    "QUANTIZER_LAWS",
    "ForeignModule",
    "Law",
    "Outcome",
    "PriorSubject",
    "Report",
    "Subject",
    "Verdict",
    "infer_interface",
    "judge",
    "judge_all",
    "report_on",
    "report_on_module",
    "require",
]
