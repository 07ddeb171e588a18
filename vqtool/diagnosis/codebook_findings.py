"""What can be wrong with codebooks: each check is one function over the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from vqtool.diagnosis import fixes, grid
from vqtool.diagnosis.report import Codebook, Finding, Report

FEW_TOKENS = 5  # per code: with fewer, unused codes and entropies mean little
TOO_FEW = 2  # per code: with fewer, a dead code looks like one whose turn did not come


def not_started(report: Report) -> Iterator[Finding]:
    """Codebooks that hold no codes."""
    if report.quantizer.get("initialised", True):
        return
    yield Finding(
        "not-started", "fail", 0.0, None, "a codebook must be started from encoder outputs",
        "the codebooks were never started: they hold zeros, and the quantizer refuses to run. `vqtool train` starts "
        "them; in a loop of your own, call `quantizer.initialise(z)` with outputs of the encoder",
    )  # fmt: skip


def not_a_number(report: Report) -> Iterator[Finding]:
    """Codes that are not numbers."""
    for book in report.codebooks:
        if book.vectors is None or np.isfinite(book.vectors).all():
            continue
        bad = int((~np.isfinite(book.vectors)).any(1).sum())
        yield Finding(
            "nan", "fail", float(bad), 0.0, "a code must be a number",
            f"{bad} of the {book.size} codes of {spoken(report, book)} hold a NaN or an infinity: one bad input was "
            "averaged in, and no later one can take it out again",
            fixes.learning_rate(report) or fixes.clip(report), book.name,
        )  # fmt: skip


def weights_not_finite(report: Report) -> Iterator[Finding]:
    """Weights of any part that are NaN or infinite, except codes, which are found above."""
    codes = any(book.vectors is not None and not np.isfinite(book.vectors).all() for book in report.codebooks)
    bad = {name: count for name, count in report.not_finite.items()
           if not (codes and name.startswith("parts.quantizer."))}  # fmt: skip
    if bad:
        name, count = next(iter(bad.items()))
        more = f" and of {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        yield Finding(
            "nan", "fail", float(sum(bad.values())), 0.0, "a weight must be a number",
            f"{count:,} values of `{name}`{more} are NaN or infinite: nothing computed from them means anything. An "
            "earlier checkpoint of the run may be intact", fixes.clip(report), "weights",
        )  # fmt: skip


def collapse(report: Report) -> Iterator[Finding]:
    """All tokens in a few codes: in every codebook, or in one while the others are healthy."""
    starve = noun_of(report) == "expert"  # an expert that gets no window is as dead as can be
    some = any(book.measures.get("tokens", 0) > 0 for book in report.codebooks)
    counted = [b for b in report.codebooks if b.size > 1 and (b.measures.get("tokens", 0) > 0 or (starve and some))]
    if not counted:
        return
    dead = [book for book in counted if _grade(report, "collapse", book) != "ok"]
    if len(report.codebooks) == 1 or len(dead) == len(counted):
        yield _collapsed(report, min(counted, key=_spread))
        return
    yield report.judge("collapse", max(map(_spread, counted)), "the codebooks are not collapsed")
    dead = [book for book in counted if _grade(report, "dead-level", book) != "ok"]
    if dead:
        worst = min(dead, key=_spread)
        found = report.judge("dead-level", _spread(worst), _dead_level_cause(report, worst, dead),
                             fix=_dead_level_fixes(report, dead), where=worst.name)  # fmt: skip
        yield replace(found, also=tuple(book.name for book in dead if book is not worst))


def _spread(book: Codebook) -> float:
    return book.measures["spread"]


def _grade(report: Report, name: str, book: Codebook) -> str:
    return report.limit(name).grade(_spread(book))[0]


def _collapsed(report: Report, book: Codebook) -> Finding:
    m, alone = book.measures, len(report.codebooks) == 1
    what = spoken(report, book) if alone else f"all {len(report.codebooks)} codebooks; {spoken(report, book)}"
    perplexity = f"perplexity {m['perplexity']:.3g} of {book.size}"
    if _grade(report, "collapse", book) == "ok":
        return report.judge("collapse", _spread(book), f"{what}: {perplexity}", where=book.name)
    cause = f"{what} collapsed: {perplexity}, and its hottest code has {m['hottest']:.0%} of the tokens"
    why, fix = unused(report, book)
    return report.judge("collapse", _spread(book), cause, why=why, fix=fix, where=book.name if alone else "")


def unused(report: Report, *books: Codebook) -> tuple[str, tuple[str, ...]]:
    """(Why codes of the first of `books` are not used, fixes for all of them): the likeliest reason decides."""
    rate = fixes.learning_rate(report)
    if rate and report.recipe:
        return ". The learning rate is so high that the encoder's outputs jump away from the codes at each step", rate
    if report.fixed:
        return grid.unused(report, books[0])
    diversity = fixes.diversity(report)
    if diversity and report.recipe:
        weak = [f"only `{term} = {report.weight(term):g}`" for term in fixes.DIVERSITY if report.weight(term)]
        rewards = weak[0] if weak else "no loss"
        return f". The codes chosen first stay the cheapest: {rewards} rewards the use of many codes", diversity
    again = (*fixes.better_start(report), *fixes.revival(report), *fixes.improve(report))
    if report.option("quantizer", "start") == "random":
        return ". The first codes were random inputs, and those that no input chose stay where they are", again
    if report.number("quantizer", "revive_below") == 0 and fixes.by_average(report):
        why = ". The encoder moved away from them, and nothing reinitialises dead codes: revive_below is 0"
        return why, again
    if report.gives("codebook") and report.quantizer.get("mapped", not report.quantizer.get("movable", True)):
        why = ". One trained map moves all codes at once, and it has not spread them over the encoder's outputs yet"
        return why, fixes.higher_rate(report)
    if report.gives("codebook"):
        return ". A learned code that no input chooses gets no gradient, so it cannot come back", again or (
            fixes.KMEANS,
        )
    if fixes.too_slow(report) and fixes.by_average(report):
        steps = report.trained_with("steps")
        decay = report.option("quantizer", "decay")
        why = (f". A decay of {decay:g} is slow for {steps} steps: codes that nothing chooses are not forgotten, "
               "and not reinitialised")  # fmt: skip
        return why, again
    why = ". The encoder moved away from the codes, or most inputs hardly differ (silence, or one scale above all)"
    return why, (*again, *fixes.normalise(report)) if report.recipe else (*again, *rate, *diversity)


def _dead_level_cause(report: Report, book: Codebook, dead: Sequence[Codebook]) -> str:
    noun, number = noun_of(report), report.codebooks.index(book) + 1
    cause = (f"{noun} {number} of {len(report.codebooks)} (`{book.name}`) is dead: perplexity "
             f"{book.measures['perplexity']:.3g} of {book.size}, while other {noun}s are in use")  # fmt: skip
    if len(dead) > 1:
        cause += "; so are " + ", ".join(f"`{other.name}`" for other in dead if other is not book)
    why = {
        "expert": "The router sends hardly any window there, and a code that no input reaches does not learn",
        "level": "It removes nothing of what the levels before it leave; its bits are wasted",
        "codebook": "One code has nearly all of its tokens; its bits are wasted",
    }
    return f"{cause}. {why.get(noun, 'One code represents its whole slice of the features; its bits are wasted')}"


def _dead_level_fixes(report: Report, dead: Sequence[Codebook]) -> tuple[str, ...]:
    if noun_of(report) == "expert":
        return fixes.weighted(report, "balance", max(0.3, 3 * report.weight("balance")))
    lines = list(unused(report, *dead)[1])
    first = min(map(report.codebooks.index, dead))
    if first and report.option("quantizer", "levels") and first + len(dead) == len(report.codebooks):
        lines.append(fixes.option(report.key("quantizer", "levels"), first))  # all from there on are dead
    return tuple(lines)


def dead_codes(report: Report) -> Iterator[Finding]:
    """Codes that are never chosen; one finding for all codebooks, with the worst figure."""
    counted = [b for b in report.codebooks if b.measures.get("tokens", 0) >= TOO_FEW * b.size and not _stuck(report, b)
               and (len(report.codebooks) == 1 or _grade(report, "dead-level", b) == "ok")]  # fmt: skip
    if not counted:
        return
    limit = report.limit("dead-codes")
    worst = max(counted, key=lambda b: b.measures["dead_share"])
    bad = [b for b in counted if limit.grade(b.measures["dead_share"])[0] != "ok"]
    others = [f"`{b.name}` {b.measures['dead']:.0f}" for b in bad if b is not worst]
    also = f" (also dead: {', '.join(others)})" if others else ""
    why, fix = unused(report, worst, *bad)
    fix = fix or fixes.fewer_codes(report, *bad)
    why = also + why
    cause = f"{spoken(report, worst)}: {worst.measures['dead']:.0f} of {worst.size} codes are never chosen"
    found = report.judge("dead-codes", worst.measures["dead_share"], cause, why=why, fix=fix, where=worst.name)
    yield replace(found, also=tuple(book.name for book in bad if book is not worst))


def duplicate_codes(report: Report) -> Iterator[Finding]:
    """Codes that are nearly identical."""
    known = [b for b in report.codebooks
             if "duplicate_share" in b.measures and b.measures.get("used", 3) >= 3 and not _zero(b)]  # fmt: skip
    if not known:
        return
    worst = max(known, key=lambda b: b.measures["duplicate_share"])
    of = " in use" if "used" in worst.measures else ""
    cause = f"{spoken(report, worst)}: {worst.measures['duplicates']:.0f} codes{of} have a near-identical twin"
    limit = report.limit("duplicate-codes")
    others = [f"`{b.name}` {b.measures['duplicates']:.0f}" for b in known
              if b is not worst and limit.grade(b.measures["duplicate_share"])[0] != "ok"]  # fmt: skip
    why = f" (also: {', '.join(others)})" if others else ""
    why += ". They share the tokens of one: bits are spent on a choice that changes nothing"
    if report.option("quantizer", "start") == "random":
        why += ". The initial codes were drawn from inputs that are nearly equal (silence, for example)"
    fix = (*fixes.better_start(report), *fixes.improve(report, merge=True))
    yield report.judge("duplicate-codes", worst.measures["duplicate_share"], cause, why=why, fix=fix, where=worst.name)


def zero_codebook(report: Report) -> Iterator[Finding]:
    """Codebooks that hold nothing but zeros."""
    if not report.quantizer.get("initialised", True):
        return  # `not_started`
    for book in report.codebooks:
        if _zero(book):
            yield Finding(
                "zero-codebook", "fail", 0.0, 0.0, "codes must differ for a token to say anything",
                f"all {book.size} codes of {spoken(report, book)} are zero: it was never started, or its weights were "
                "lost or overwritten when they were saved or loaded", fixes.improve(report), book.name,
            )  # fmt: skip


def _zero(book: Codebook) -> bool:
    return book.vectors is not None and book.size > 1 and not book.vectors.any()


def _stuck(report: Report, book: Codebook) -> bool:
    """Whether a codebook cannot be used for a reason that has a finding of its own."""
    moved = book.measures.get("moved", 1.0)
    frozen = not report.fixed and report.limit("frozen-codebook").grade(moved)[0] == "fail"
    return frozen or _zero(book)


def motion(report: Report) -> Iterator[Finding]:
    """Codebooks that do not move while they are trained: never updated, or updated from their own outputs."""
    moved = {b.name: _last(report, f"codes.moved.{b.name}") for b in report.codebooks}
    known = {name: figure for name, figure in moved.items() if figure is not None}
    if not known or report.fixed:
        return
    name, figure = min(known.items(), key=lambda item: item[1])
    followed = _last(report, f"codes.followed.{name}")
    fed = followed is not None and followed > 0.5
    limit = report.limit("outputs-fed" if fed else "frozen-codebook")
    every = len(known) > 1 and all(limit.grade(value)[0] != "ok" for value in known.values())
    what = f"every codebook, `{name}` the most," if every else spoken(report, report.codebook(name))
    where = "" if every else name
    if limit.grade(figure)[0] == "ok":
        cause = f"{what}: {figure:.0%} of the codes chosen in a step move"
        yield report.judge("frozen-codebook", figure, cause, where=name, limit=limit)
    elif fed:
        cause = (f"{what} follows its own outputs: its record of use changes with every step, but of the codes chosen "
                 f"only {figure:.0%} move. An average over the code vectors that were chosen gives the codes back: "
                 "`CodebookStats.sums` must be sums of the inputs that chose them")  # fmt: skip
        yield report.judge("outputs-fed", figure, cause, fix=fixes.verify(report), where=where)
    else:
        cause = (f"{what} is frozen: of the codes chosen in a step only {figure:.0%} move, while the encoder goes on "
                 f"training. {_why_frozen(report)}")  # fmt: skip
        slow = fixes.higher_rate(report) if _too_slow(report) else ()
        fix = fixes.weighted(report, "codebook", 1.0) or slow or fixes.verify(report)
        yield report.judge("frozen-codebook", figure, cause, fix=fix, where=where)


def _why_frozen(report: Report) -> str:
    if report.gives("codebook") and not report.weight("codebook"):
        return "No loss moves the codes: the term `codebook` has no weight"
    if _too_slow(report):
        return "The learning rate is too small to move a float32 number"
    if fixes.by_average(report):
        return "Its moving average is never updated (quantizer.update is not called), or keeps all of the past"
    return "No update and no gradient reaches the codes"


def _too_slow(report: Report) -> bool:
    """Whether codes that follow a gradient hardly move because the learning rate is tiny."""
    return report.gives("codebook") and (report.trained_with("lr") or 1.0) < 1e-7


def lagging(report: Report) -> Iterator[Finding]:
    """Codes that are not at the mean of what chooses them, where they should be."""
    if report.recipe and not fixes.by_average(report):
        return  # codes that follow a loss or a map need not be
    known = [b for b in report.codebooks if "lag" in b.measures]
    worst = max(known, key=lambda b: b.measures["lag"], default=None)
    if worst is not None and worst.measures["lag"] > 0.5:
        yield Finding(
            "codebook-lags", "note", worst.measures["lag"], 0.5, "half of the error: the lag outweighs all else",
            f"{spoken(report, worst)} lags: {worst.measures['lag']:.0%} of its squared error is there because codes "
            "are not at the mean of their inputs. The encoder changes faster than the moving average follows",
            (*fixes.faster_codebook(report), *fixes.learning_rate(report)), worst.name,
        )  # fmt: skip


def dimension_collapse(report: Report) -> Iterator[Finding]:
    """Code vectors that lie in a few of their dimensions."""
    known = [b for b in report.codebooks if "rank_share" in b.measures] if not report.fixed else []
    if not known:
        return
    most = report.number("quantizer", "code_dim") or math.inf
    dimensions = {b.name: min(b.measures["dimensions"], most) for b in known}
    ranks = {b.name: b.measures["rank_share"] * b.measures["dimensions"] for b in known}
    shares = {name: (ranks[name] - 1) / (dims - 1) if dims > 1 else 1.0 for name, dims in dimensions.items()}
    worst = min(known, key=lambda b: shares[b.name])
    rank, dims = ranks[worst.name], dimensions[worst.name]
    cause = f"the codes of {spoken(report, worst)} lie in about {rank:.2g} of the {dims:.0f} dimensions they could fill"
    why = (". The other dimensions carry nothing through the quantizer: the latents are wider than what they hold, or "
           "the encoder settled in a few directions before the codes could follow")  # fmt: skip
    fix = fixes.narrower(report, rank)
    yield report.judge("dimension-collapse", shares[worst.name], cause, why=why, fix=fix, where=worst.name)


def few_tokens(report: Report) -> Iterator[Finding]:
    """Too few tokens to judge by."""
    short = [b for b in report.codebooks if 0 < b.measures.get("tokens", 0) < FEW_TOKENS * b.size]
    if short:
        book = min(short, key=lambda b: b.measures["tokens"] / b.size)
        figure = book.measures["tokens"] / book.size
        yield Finding(
            "few-tokens", "note", figure, FEW_TOKENS, "under uniform use e^-5 of the codes stay unused by chance",
            f"{book.measures['tokens']:.0f} tokens were counted for {book.size} codes: use and perplexity are "
            "understated (dead codes are estimated from those seen only once or twice). More rows give more tokens",
            fixes.more_tokens(report), book.name,
        )  # fmt: skip


def hot_code(report: Report) -> Iterator[Finding]:
    """One code that has most tokens: silence, often, so a note only."""
    for book in report.codebooks:
        share = book.measures.get("hottest", 0.0)
        if share > 0.5 and book.size > 2 and _grade(report, "collapse", book) == "ok":
            yield Finding(
                "hot-code", "note", share, 0.5, "more than all others together",
                f"{spoken(report, book)}: one code has {share:.0%} of all tokens: silence or padding, if the data "
                "hold much of it; a code near the mean of everything, if not", (), book.name,
            )  # fmt: skip


def noun_of(report: Report) -> str:
    """What one of several codebooks is called here: level, group or expert."""
    return str(report.quantizer.get("noun", "group"))


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


CHECKS = (
    not_started, not_a_number, weights_not_finite, zero_codebook, collapse, dead_codes, duplicate_codes, motion,
    lagging, dimension_collapse, few_tokens, hot_code,
)  # fmt: skip
