"""Fixes that one can paste: options of `vqtool train`, only those that the recipe takes, and commands."""

from __future__ import annotations

import shlex
from typing import Any

from vqtool.diagnosis.report import Codebook, Report


def option(key: str, value: object) -> str:
    """`-s KEY=VALUE`, quoted for a shell; it is read as by `vqtool train RECIPE -s KEY=VALUE`."""
    return f"-s {shlex.quote(f'{key}={value}')}"


def command(*words: object) -> str:
    """A vqtool command, quoted for a shell."""
    return shlex.join(["vqtool", *map(str, words)])


def revival(report: Report, below: float = 0.1) -> tuple[str, ...]:
    """Reinitialise dead codes, or do it earlier."""
    now = report.number("quantizer", "revive_below")
    if now is None:
        return ()
    wanted = below if now < below else min(round(now * 3, 2), 0.5)
    return (option(report.key("quantizer", "revive_below"), f"{wanted:g}"),) if wanted > now else ()


def better_start(report: Report) -> tuple[str, ...]:
    """Start the codes at cluster centres of the data."""
    random = report.option("quantizer", "start") == "random"
    return (option(report.key("quantizer", "start"), "kmeans"),) if random else ()


def diversity(report: Report, weight: float = 0.3) -> tuple[str, ...]:
    """Weight the loss that rewards the use of all codes."""
    return weighted(report, "diversity", weight)


def weighted(report: Report, term: str, weight: float) -> tuple[str, ...]:
    """Give a term of the quantizer at least this weight, where the quantizer has the term."""
    if not report.gives(term) or report.weight(term) >= weight or not report.stage():
        return ()
    return (option(f"stage.{report.stage()['name']}.losses.{term}", f"{weight:g}"),)


def fewer_codes(report: Report, *books: Codebook) -> tuple[str, ...]:
    """Make the codebook as small as what is used of it: the next power of two."""
    if report.option("quantizer", "codebook_size") is None or not books:
        return ()
    used = max(book.measures.get("used", book.size) for book in books)
    wanted = max(2, 1 << max(0, int(used) - 1).bit_length())
    smaller = wanted < min(book.size for book in books)
    return (option(report.key("quantizer", "codebook_size"), wanted),) if smaller else ()


def faster_codebook(report: Report) -> tuple[str, ...]:
    """Let the moving average follow faster."""
    decay = report.number("quantizer", "decay")
    if decay is None or decay <= 0.95:
        return ()
    return (option(report.key("quantizer", "decay"), 0.99 if decay > 0.99 else 0.95),)


def learning_rate(report: Report, factor: float = 0.3) -> tuple[str, ...]:
    """Multiply the learning rate of the stage that trains the quantizer."""
    rate = _trained_with(report, "lr")
    return (option(f"stage.{report.stage()['name']}.lr", f"{rate * factor:.2g}"),) if rate else ()


def clip(report: Report) -> tuple[str, ...]:
    """Clip gradients, or clip them to a smaller norm."""
    if not report.stage():
        return ()
    now = _trained_with(report, "clip")
    wanted = 1.0 if not now or now > 1 else 0.3 * now
    return (option(f"stage.{report.stage()['name']}.clip", f"{wanted:.2g}"),)


def full_precision(report: Report) -> tuple[str, ...]:
    """Compute in 32 bits, where less is used."""
    low = _trained_with(report, "precision") not in (None, "fp32")
    return (option(f"stage.{report.stage()['name']}.precision", "fp32"),) if low else ()


def _trained_with(report: Report, name: str) -> Any:
    return (report.stage().get("train") or {}).get(name)


def improve(report: Report) -> tuple[str, ...]:
    """The command that reinitialises dead codes of a checkpoint, where its codes have vectors."""
    has_vectors = any(book.vectors is not None for book in report.codebooks)
    return (command("improve", report.source),) if has_vectors and report.source.suffix == ".safetensors" else ()


def verify(report: Report) -> tuple[str, ...]:
    """The command that checks the quantizer's own laws."""
    kind = ((report.recipe.get("parts") or {}).get("quantizer") or {}).get("kind")
    return (command("verify", "quantizer", kind),) if kind else ()


def hardening(report: Report) -> tuple[str, ...]:
    """Train the path that is deployed: a falling temperature, the hard value, losses for both."""
    stage, knobs = report.stage(), (report.metadata.get("quantizer") or {}).get("knobs", ())
    if not stage:
        return ()
    schedule = f"stage.{stage['name']}.schedule.quantizer"
    lines = []
    if "temperature" in knobs:
        start = report.number("quantizer", "temperature") or 1.0
        ramp = f'{{ kind = "geometric", from = {start:g}, to = {start / 100:g} }}'
        lines.append(option(f"{schedule}.temperature", ramp))
    if "hard" in knobs:
        lines.append(option(f"{schedule}.hard", '{ kind = "linear", from = 0.0, to = 1.0 }'))
    return (*lines, *weighted(report, "commitment", 0.25), *weighted(report, "consistency", 0.5))


def waveform_loss(report: Report) -> tuple[str, ...]:
    """A loss on the waveform itself, where the stage has none."""
    stage = report.stage()
    if not stage or any(loss["name"] in ("mse", "l1") for loss in stage["losses"]):
        return ()
    return (option(f"stage.{stage['name']}.losses.mse", "1.0"),)
