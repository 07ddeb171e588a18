"""What is new at a look: once, again when it gets worse or comes back, and what to stop at."""

from __future__ import annotations

from vqtool.diagnosis.news import News, UnhealthyError
from vqtool.diagnosis.report import Finding, Severity


def finding(
    where: str = "level0", severity: Severity = "warn", id: str = "dead-codes", also: tuple[str, ...] = ()
) -> Finding:
    return Finding(id, severity, 0.5, 0.4, "", "cause", ("fix",), where, also=also)


def test_a_finding_is_news_once() -> None:
    news = News()
    assert [len(news.of([finding()])) for _ in range(4)] == [1, 0, 0, 0]


def test_it_is_news_again_when_it_gets_worse() -> None:
    news = News()
    severities: tuple[Severity, ...] = ("warn", "fail", "warn", "fail")
    assert [len(news.of([finding(severity=s)])) for s in severities] == [1, 1, 0, 0]


def test_it_is_news_again_when_it_comes_back_after_two_looks_without() -> None:
    news = News()
    seen = [[finding()], [], [finding()], [], [], [finding()]]
    assert [len(news.of(found)) for found in seen] == [1, 0, 0, 0, 0, 1]


def test_twice_reports_what_was_there_at_the_last_look() -> None:
    news = News("warn", twice=True)
    seen = [[finding()], [], [finding()], [finding()], [finding()]]
    assert [(len(news.of(found)), news.ill is not None) for found in seen] == [
        (0, False), (0, False), (0, False), (1, True), (0, True)]  # fmt: skip


def test_one_that_waits_is_no_news_and_has_not_gone() -> None:
    news = News()
    waits = [True, False, True, True, True, False]
    assert [len(news.of([finding()], lambda _, now=now: now)) for now in waits] == [0, 1, 0, 0, 0, 0]


def test_another_codebook_that_has_it_is_news() -> None:
    news = News()
    assert len(news.of([finding("level3")])) == 1
    assert len(news.of([finding("level3", also=("level5",))])) == 1
    assert len(news.of([finding("level5", also=("level3",))])) == 0


def test_notes_and_what_passed_are_no_news() -> None:
    assert News().of([finding(severity="ok"), finding(severity="note"), finding(id="few-tokens")]) == []


def test_what_to_stop_at_was_there_at_the_last_look_too() -> None:
    news = News("fail")
    ill = []
    for found in ([finding(severity="fail")], [], [finding(severity="fail")], [finding(severity="fail")]):
        news.of(found)
        ill.append(news.ill is not None)
    assert ill == [False, False, False, True]
    mild = News("fail")
    for _ in range(3):
        mild.of([finding()])
    assert mild.ill is None


def test_the_error_has_the_cause_and_the_fixes() -> None:
    error = UnhealthyError(finding(), "step 9", "go on")
    assert str(error) == "stopped for dead-codes: cause"
    assert (error.hint, error.where, error.exit_code) == ("fix\ngo on", "step 9", 3)
