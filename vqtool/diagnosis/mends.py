"""Recipe lines that mend: only those that this recipe can take, each usable as `-s LINE` as well."""

from __future__ import annotations

from vqtool.diagnosis.report import Codebook, Report


def revival(report: Report, below: float = 0.1) -> tuple[str, ...]:
    """Reviving dead codes, or reviving them earlier."""
    now = report.number("quantizer", "revive_below")
    if now is None:
        return ()
    wanted = below if now < below else min(round(now * 3, 2), 0.5)
    return (f"quantizer.revive_below = {wanted:g}",) if wanted > now else ()


def better_start(report: Report) -> tuple[str, ...]:
    """Codes that start where the data are."""
    return ('quantizer.start = "kmeans"',) if report.option("quantizer", "start") == "random" else ()


def diversity(report: Report, weight: float = 0.3) -> tuple[str, ...]:
    """A loss that wants all codes used."""
    return weighted(report, "diversity", weight)


def weighted(report: Report, term: str, weight: float) -> tuple[str, ...]:
    """A term of the quantizer with at least this weight, where the quantizer gives it."""
    if not report.gives(term) or report.weight(term) >= weight or not report.stage():
        return ()
    return (f"stage.{report.stage()['name']}.losses.{term} = {weight:g}",)


def fewer_codes(report: Report, *books: Codebook) -> tuple[str, ...]:
    """A codebook as small as what is used of it: the next power of two."""
    if not report.has_option("quantizer", "codebook_size") or not books:
        return ()
    used = max(book.measures.get("used", book.size) for book in books)
    wanted = max(2, 1 << max(0, int(used) - 1).bit_length())
    return (f"quantizer.codebook_size = {wanted}",) if wanted < min(book.size for book in books) else ()


def faster_codebook(report: Report) -> tuple[str, ...]:
    """A moving average that follows faster."""
    decay = report.number("quantizer", "decay")
    return (f"quantizer.decay = {0.99 if decay > 0.99 else 0.95:g}",) if decay is not None and decay > 0.95 else ()


def slower_encoder(report: Report, factor: float = 0.3) -> tuple[str, ...]:
    """A lower learning rate of the stage that trains the quantizer."""
    stage = report.stage()
    rate = (stage.get("train") or {}).get("lr")
    return (f"stage.{stage['name']}.lr = {rate * factor:.2g}",) if rate else ()


def improve(report: Report) -> tuple[str, ...]:
    """The command that re-initialises dead codes of a checkpoint, where its codes have vectors."""
    some = any(book.vectors is not None for book in report.codebooks)
    return (f"vqtool improve {report.source}",) if some and report.source.suffix == ".safetensors" else ()


def hardening(report: Report) -> tuple[str, ...]:
    """Training the path that is deployed: a falling temperature, the hard value, losses for both."""
    stage, knobs = report.stage(), (report.about.get("quantizer") or {}).get("knobs", ())
    if not stage:
        return ()
    lines = []
    if "temperature" in knobs:
        start = report.number("quantizer", "temperature") or 1.0
        ramp = f'{{ kind = "geometric", from = {start:g}, to = {start / 100:g} }}'
        lines.append(f"stage.{stage['name']}.schedule.quantizer.temperature = {ramp}")
    if "hard" in knobs:
        ramp = '{ kind = "linear", from = 0.0, to = 1.0 }'
        lines.append(f"stage.{stage['name']}.schedule.quantizer.hard = {ramp}")
    return (*lines, *weighted(report, "commitment", 0.25), *weighted(report, "consistency", 0.5))
