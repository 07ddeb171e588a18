"""What can be wrong with codebooks: each check is one function over the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from vqtool.diagnosis import mends
from vqtool.diagnosis.report import Codebook, Finding, Report
from vqtool.recipe.thresholds import limit_of

FEW_TOKENS = 5  # per code: below, unused codes and entropies tell little
TOO_FEW = 2  # per code: below, nobody can tell a dead code from one whose turn did not come


def not_started(report: Report) -> Iterator[Finding]:
    """Codebooks that hold no codes."""
    if report.about.get("quantizer", {}).get("initialised", True):
        return
    yield Finding(
        "not-started", "fail", 0.0, None, "a codebook must be started from encoder outputs",
        "the codebooks were never started: they hold zeros, and the quantizer refuses to run",
        ("call quantizer.initialise(z) with outputs of the encoder, as `vqtool train` does",),
    )  # fmt: skip


def not_a_number(report: Report) -> Iterator[Finding]:
    """Codes that are no numbers."""
    for book in report.codebooks:
        if book.vectors is None or np.isfinite(book.vectors).all():
            continue
        bad = int((~np.isfinite(book.vectors)).any(1).sum())
        yield Finding(
            "nan", "fail", float(bad), 0.0, "a code must be a number",
            f"{bad} of the {book.size} codes of {spoken(report, book)} hold a NaN or an infinity: one bad input was "
            "averaged in, and no later one can take it out again",
            ("train.clip = 1.0", *mends.slower_encoder(report)), book.name,
        )  # fmt: skip


def weights_not_finite(report: Report) -> Iterator[Finding]:
    """Weights of any part that are NaN or infinite, but for codes, which are found above."""
    codes = any(book.vectors is not None and not np.isfinite(book.vectors).all() for book in report.codebooks)
    bad = {name: count for name, count in report.not_finite.items()
           if not (codes and name.startswith("parts.quantizer."))}  # fmt: skip
    if bad:
        name, count = next(iter(bad.items()))
        more = f" and of {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        yield Finding(
            "nan", "fail", float(sum(bad.values())), 0.0, "a weight must be a number",
            f"{count:,} values of `{name}`{more} are NaN or infinite: nothing that is computed from them means "
            "anything", ("an earlier checkpoint of the run, or train.clip = 1.0",), "weights",
        )  # fmt: skip


def collapse(report: Report) -> Iterator[Finding]:
    """All tokens in a few codes: in every codebook, or in one while the others are well."""
    starve = noun_of(report) == "expert"  # an expert that no window takes is as dead as can be
    some = any(book.measures.get("tokens", 0) > 0 for book in report.codebooks)
    counted = [b for b in report.codebooks if b.size > 1 and (b.measures.get("tokens", 0) > 0 or (starve and some))]
    if not counted:
        return
    alone = len(report.codebooks) == 1
    limit = limit_of("collapse", report.recipe)
    grades = [limit.grade(book.measures["spread"])[0] for book in counted]
    if alone or all(grade != "ok" for grade in grades):
        book = min(counted, key=lambda b: b.measures["spread"])
        severity, at = limit.grade(book.measures["spread"])
        where = book.name if alone else ""
        lines = _collapse_mends(report) if severity != "ok" else ()
        yield Finding("collapse", severity, book.measures["spread"], at, limit.source,
                      _collapse_cause(report, book, severity, alone), lines, where)  # fmt: skip
        return
    yield Finding("collapse", "ok", max(b.measures["spread"] for b in counted), limit.warn, limit.source,
                  "the codebooks are not collapsed")  # fmt: skip
    limit = limit_of("dead-level", report.recipe)
    dead = [book for book in counted if limit.grade(book.measures["spread"])[0] != "ok"]
    if dead:
        worst = min(dead, key=lambda b: b.measures["spread"])
        severity, at = limit.grade(worst.measures["spread"])
        yield Finding("dead-level", severity, worst.measures["spread"], at, limit.source,
                      _dead_level_cause(report, worst, dead), _dead_level_mends(report, dead), worst.name)  # fmt: skip


def _collapse_cause(report: Report, book: Codebook, severity: str, alone: bool) -> str:
    m = book.measures
    whole = f"{spoken(report, book)}" if alone else f"all {len(report.codebooks)} codebooks; {spoken(report, book)}"
    if severity == "ok":
        return f"{whole}: perplexity {m['perplexity']:.3g} of {book.size}"
    begin = (f"{whole} collapsed: perplexity {m['perplexity']:.3g} of {book.size}, and its hottest code has "
             f"{m['hottest']:.0%} of the tokens")  # fmt: skip
    if report.option("quantizer", "start") == "random":
        return f"{begin}. The first codes were random inputs; those that nothing chose were left behind for good"
    if report.gives("diversity") and not report.weight("diversity"):
        return f"{begin}. No loss asks for diversity, so the choice that is made already is the cheapest one"
    return f"{begin}. The encoder moved away from the codes, or its outputs hardly differ; dead codes cannot come back"


def _collapse_mends(report: Report) -> tuple[str, ...]:
    lines = (*mends.better_start(report), *mends.revival(report), *mends.diversity(report))
    return (*lines, *mends.slower_encoder(report), *mends.improve(report))


def _dead_level_cause(report: Report, book: Codebook, dead: Sequence[Codebook]) -> str:
    m, q = book.measures, report.codebooks.index(book)
    noun = noun_of(report)
    told = (f"{noun} {q + 1} of {len(report.codebooks)} (`{book.name}`) is dead: perplexity {m['perplexity']:.3g} of "
            f"{book.size}, while other {noun}s are in use")  # fmt: skip
    if len(dead) > 1:
        told += "; so are " + ", ".join(f"`{other.name}`" for other in dead if other is not book)
    if noun == "expert":
        return f"{told}. The router sends hardly a window there, and a code that nothing reaches does not learn"
    if noun == "level":
        return f"{told}. It takes nothing off what the levels before it leave; its bits are sent for nothing"
    return f"{told}. Its slice of the features is told by one code; its bits are sent for nothing"


def _dead_level_mends(report: Report, dead: Sequence[Codebook]) -> tuple[str, ...]:
    if noun_of(report) == "expert":
        return mends.weighted(report, "balance", max(0.3, 3 * report.weight("balance")))
    lines = [*mends.better_start(report), *mends.revival(report), *mends.diversity(report), *mends.improve(report)]
    first = min(map(report.codebooks.index, dead))
    if first and report.option("quantizer", "levels") and first + len(dead) == len(report.codebooks):
        lines.append(f"quantizer.levels = {first}")  # all from there on are dead
    return tuple(lines)


def dead_codes(report: Report) -> Iterator[Finding]:
    """Codes that are never chosen; one finding for all codebooks, with the worst figure."""
    limit = limit_of("dead-level", report.recipe)  # such levels are told as what they are
    counted = [b for b in report.codebooks if b.measures.get("tokens", 0) >= TOO_FEW * b.size
               and (len(report.codebooks) == 1 or limit.grade(b.measures["spread"])[0] == "ok")]  # fmt: skip
    if not counted:
        return
    limit = limit_of("dead-codes", report.recipe)
    worst = max(counted, key=lambda b: b.measures["dead_share"])
    severity, at = limit.grade(worst.measures["dead_share"])
    ill = [b for b in counted if limit.grade(b.measures["dead_share"])[0] != "ok"]
    m = worst.measures
    cause = f"{spoken(report, worst)}: {m['dead']:.0f} of {worst.size} codes are never chosen"
    lines: tuple[str, ...] = ()
    if severity != "ok":
        others = [f"`{b.name}` {b.measures['dead']:.0f}" for b in ill if b is not worst]
        cause += f" (dead as well: {', '.join(others)})" if others else ""
        off = report.option("quantizer", "revive_below") == 0
        cause += ". Nothing revives them: revive_below is 0" if off else ". No input is near them any more"
        lines = (*mends.revival(report), *mends.better_start(report), *mends.diversity(report),
                 *mends.fewer_codes(report, *ill), *mends.improve(report))  # fmt: skip
    yield Finding("dead-codes", severity, m["dead_share"], at, limit.source, cause, lines, worst.name)


def duplicate_codes(report: Report) -> Iterator[Finding]:
    """Codes that stand for the same."""
    known = [b for b in report.codebooks if "duplicate_share" in b.measures and b.measures.get("used", 0) >= 3]
    if not known:
        return
    limit = limit_of("duplicate-codes", report.recipe)
    worst = max(known, key=lambda b: b.measures["duplicate_share"])
    m = worst.measures
    severity, at = limit.grade(m["duplicate_share"])
    cause = f"{spoken(report, worst)}: {m['duplicates']:.0f} codes in use have a twin in nearly the same place"
    lines: tuple[str, ...] = ()
    if severity != "ok":
        cause += ". They share the tokens of one: bits are spent on a choice that changes nothing"
        if report.option("quantizer", "start") == "random":
            cause += ". The start drew them from inputs that are nearly equal (silence, say)"
        lines = (*mends.better_start(report), *mends.fewer_codes(report, worst), *mends.improve(report))
    yield Finding("duplicate-codes", severity, m["duplicate_share"], at, limit.source, cause, lines, worst.name)


def motion(report: Report) -> Iterator[Finding]:
    """Codebooks that do not move while they are trained: nobody updates them, or they are fed their own outputs."""
    moved = {b.name: _last(report, f"codes.moved.{b.name}") for b in report.codebooks}
    known = {name: figure for name, figure in moved.items() if figure is not None}
    if not known:
        return
    name, figure = min(known.items(), key=lambda item: item[1])
    followed = _last(report, f"codes.followed.{name}")
    fed = followed is not None and followed > 0.5
    limit = limit_of("outputs-fed" if fed else "frozen-codebook", report.recipe)
    severity, at = limit.grade(figure)
    book = next(b for b in report.codebooks if b.name == name)
    if severity == "ok":
        yield Finding("frozen-codebook", "ok", figure, at, limit.source,
                      f"{spoken(report, book)}: {figure:.0%} of the codes chosen in a step move", (), name)  # fmt: skip
        return
    if fed:
        cause = (f"{spoken(report, book)} follows its own outputs: its record of use changes with every step, but of "
                 f"the codes chosen only {figure:.0%} move. An average over the code vectors that were chosen gives "
                 "the codes back; it must be over the inputs that chose them")  # fmt: skip
        lines: tuple[str, ...] = ("vqtool verify quantizer " + kind_of(report), *_follows_mends())
        yield Finding("outputs-fed", severity, figure, at, limit.source, cause, lines, name)
        return
    cause = (f"{spoken(report, book)} is frozen: of the codes chosen in a step only {figure:.0%} move, while the "
             f"encoder goes on training. {_why_frozen(report)}")  # fmt: skip
    lines = (*mends.weighted(report, "codebook", 1.0), *mends.faster_codebook(report),
             "vqtool verify quantizer " + kind_of(report))  # fmt: skip
    yield Finding("frozen-codebook", severity, figure, at, limit.source, cause, lines, name)


def _why_frozen(report: Report) -> str:
    if report.gives("codebook") and not report.weight("codebook"):
        return "No loss moves the codes: the term `codebook` has no weight"
    if report.option("quantizer", "decay") is not None:
        return "Its moving average is never updated (quantizer.update is not called), or keeps all of the past"
    return "No update and no gradient reaches the codes"


def _follows_mends() -> tuple[str, ...]:
    return ("in the quantizer: CodebookStats.sums are sums of the inputs z, not of code vectors",)


def kind_of(report: Report) -> str:
    """The quantizer's kind."""
    return str(((report.recipe.get("parts") or {}).get("quantizer") or {}).get("kind", "KIND"))


def lagging(report: Report) -> Iterator[Finding]:
    """Codes that do not lie at the mean of what chooses them, where they are meant to."""
    if report.option("quantizer", "decay") is None:
        return  # codes that follow a loss or a map need not
    known = [b for b in report.codebooks if "lag" in b.measures]
    worst = max(known, key=lambda b: b.measures["lag"], default=None)
    if worst is not None and worst.measures["lag"] > 0.5:
        yield Finding(
            "codebook-lags", "note", worst.measures["lag"], 0.5, "half of the error: the lag outweighs all else",
            f"{spoken(report, worst)} lags: {worst.measures['lag']:.0%} of its squared error is there because codes "
            "are not at the mean of their inputs. The encoder outruns the moving average",
            (*mends.faster_codebook(report), *mends.slower_encoder(report)), worst.name,
        )  # fmt: skip


def few_tokens(report: Report) -> Iterator[Finding]:
    """Too few tokens to judge by."""
    short = [b for b in report.codebooks if 0 < b.measures.get("tokens", 0) < FEW_TOKENS * b.size]
    if short:
        book = min(short, key=lambda b: b.measures["tokens"] / b.size)
        figure = book.measures["tokens"] / book.size
        yield Finding(
            "few-tokens", "note", figure, FEW_TOKENS, "under uniform use e^-5 of the codes stay unused by chance",
            f"{book.measures['tokens']:.0f} tokens were counted for {book.size} codes: use and perplexity are "
            "understated (dead codes are judged by how many were seen only once or twice)",
            ("vqtool diagnose --split train counts more",), book.name,
        )  # fmt: skip


def hot_code(report: Report) -> Iterator[Finding]:
    """One code that has most tokens: silence, often, so a note only."""
    limit = limit_of("collapse", report.recipe)
    for book in report.codebooks:
        share = book.measures.get("hottest", 0.0)
        if share > 0.5 and book.size > 2 and limit.grade(book.measures["spread"])[0] == "ok":
            yield Finding(
                "hot-code", "note", share, 0.5, "more than all others together",
                f"{spoken(report, book)}: one code has {share:.0%} of all tokens: silence or padding, if the data "
                "hold much of it; a code near the mean of everything, if not", (), book.name,
            )  # fmt: skip


def noun_of(report: Report) -> str:
    """What one of several codebooks is called here: level, group or expert."""
    return str((report.about.get("quantizer") or {}).get("noun", "group"))


def spoken(report: Report, book: Codebook) -> str:
    """A codebook's name in a sentence."""
    return "the codebook" if len(report.codebooks) == 1 else f"`{book.name}`"


def _last(report: Report, name: str) -> float | None:
    """The last value of a figure: of the history, else of the checkpoint."""
    for row in reversed(report.history):
        if isinstance(row.get(name), int | float):
            return float(row[name])
    value = report.measures.get(name)
    return None if value is None or not math.isfinite(value) else float(value)


CHECKS = (not_started, not_a_number, weights_not_finite, collapse, dead_codes, duplicate_codes, motion, lagging,
          few_tokens, hot_code)  # fmt: skip
