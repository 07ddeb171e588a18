"""Fixes that one can paste: options of `vqtool train`, only those that the recipe takes, and commands.

A model that no recipe made (another library's checkpoint, a loop of one's own) gets the same advice in words.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from vqtool.diagnosis.report import Codebook, Report


def option(key: str, value: object) -> str:
    """`-s KEY=VALUE`, quoted for a shell; it is read as by `vqtool train RECIPE -s KEY=VALUE`."""
    return f"-s {shlex.quote(f'{key}={value}')}"


def command(*words: object) -> str:
    """A vqtool command, quoted for a shell."""
    return shlex.join(["vqtool", *map(str, words)])


P = ParamSpec("P")
Fix = Callable[Concatenate[Report, P], tuple[str, ...]]


def in_words(words: str) -> Callable[[Fix[P]], Fix[P]]:
    """Give `words` for a report without a recipe, which has no options to set; no words, no fix."""

    def around(fix: Fix[P]) -> Fix[P]:
        @wraps(fix)
        def either(report: Report, /, *arguments: P.args, **named: P.kwargs) -> tuple[str, ...]:
            return fix(report, *arguments, **named) if report.recipe else (words,) * bool(words)

        return either

    return around


@in_words("reinitialise codes that are hardly used from current encoder outputs, every few hundred steps")
def revival(report: Report, below: float = 0.1) -> tuple[str, ...]:
    """Reinitialise dead codes, or do it earlier."""
    now = report.number("quantizer", "revive_below")
    if now is None:
        return ()
    wanted = below if now < below else min(round(now * 3, 2), 0.5)
    return (option(report.key("quantizer", "revive_below"), f"{wanted:g}"),) if wanted > now else ()


@in_words("start the codes with k-means over encoder outputs of many different inputs")
def better_start(report: Report) -> tuple[str, ...]:
    """Start the codes at cluster centres of the data."""
    random = report.option("quantizer", "start") == "random"
    return (option(report.key("quantizer", "start"), "kmeans"),) if random else ()


@in_words("add a loss that rewards the use of all codes (the entropy of the mean assignment) with a small weight")
def diversity(report: Report, weight: float = 0.3) -> tuple[str, ...]:
    """Weight the loss that rewards the use of all codes."""
    return weighted(report, "diversity", weight)


def weighted(report: Report, term: str, weight: float) -> tuple[str, ...]:
    """Give a term of the quantizer at least this weight, where the quantizer has the term."""
    if not report.recipe:
        return (f"give the {term} loss a weight of {weight:g}",)
    if not report.gives(term) or report.weight(term) >= weight or not report.stage():
        return ()
    return (option(f"stage.{report.stage()['name']}.losses.{term}", f"{weight:g}"),)


@in_words("use a smaller codebook")
def fewer_codes(report: Report, *books: Codebook) -> tuple[str, ...]:
    """Make the codebook as small as what is used of it: the next power of two."""
    if report.option("quantizer", "codebook_size") is None or not books:
        return ()
    used = max(book.measures.get("used", book.size) for book in books)
    wanted = max(2, 1 << max(0, int(used) - 1).bit_length())
    smaller = wanted < min(book.size for book in books)
    return (option(report.key("quantizer", "codebook_size"), wanted),) if smaller else ()


@in_words("let the moving average follow faster: a decay of 0.99 or 0.95")
def faster_codebook(report: Report) -> tuple[str, ...]:
    """Let the moving average follow faster."""
    decay = report.number("quantizer", "decay")
    if decay is None or decay <= 0.95:
        return ()
    return (option(report.key("quantizer", "decay"), 0.99 if decay > 0.99 else 0.95),)


@in_words("lower the encoder's learning rate")
def learning_rate(report: Report, factor: float = 0.3) -> tuple[str, ...]:
    """Multiply the learning rate of the stage that trains the quantizer."""
    rate = _trained_with(report, "lr")
    return (option(f"stage.{report.stage()['name']}.lr", f"{rate * factor:.2g}"),) if rate else ()


@in_words("clip the gradient norm to 1")
def clip(report: Report) -> tuple[str, ...]:
    """Clip gradients, or clip them to a smaller norm."""
    if not report.stage():
        return ()
    now = _trained_with(report, "clip")
    wanted = 1.0 if not now or now > 1 else 0.3 * now
    return (option(f"stage.{report.stage()['name']}.clip", f"{wanted:.2g}"),)


@in_words("compute the quantizer in float32")
def full_precision(report: Report) -> tuple[str, ...]:
    """Compute in 32 bits, where less is used."""
    low = _trained_with(report, "precision") not in (None, "fp32")
    return (option(f"stage.{report.stage()['name']}.precision", "fp32"),) if low else ()


def _trained_with(report: Report, name: str) -> Any:
    return (report.stage().get("train") or {}).get(name)


@in_words("")
def improve(report: Report) -> tuple[str, ...]:
    """The command that reinitialises dead codes of a checkpoint, where its codes have vectors."""
    has_vectors = any(book.vectors is not None for book in report.codebooks)
    latents = ("--latents", "latents.npy") if report.recipe.get("data", {}).get("kind") == "latents" else ()
    return (
        (command("improve", report.source, *latents),) if has_vectors and report.source.suffix == ".safetensors" else ()
    )


@in_words("check the module: `vqtool verify FILE.py:CLASS`")
def verify(report: Report) -> tuple[str, ...]:
    """The command that checks the quantizer's own laws."""
    kind = ((report.recipe.get("parts") or {}).get("quantizer") or {}).get("kind")
    return (command("verify", "quantizer", kind),) if kind else ()


@in_words("count over more tokens")
def more_tokens(report: Report) -> tuple[str, ...]:
    """The command that counts over more rows."""
    return (command("diagnose", report.source, "--split", "train"),)


@in_words("train the path that is deployed: anneal the temperature until the soft choice is a single code")
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


@in_words("add an l1 or mse loss on the output itself")
def waveform_loss(report: Report) -> tuple[str, ...]:
    """A loss on the waveform itself, where the stage has none."""
    stage = report.stage()
    if not stage or any(loss["name"] in ("mse", "l1") for loss in stage["losses"]):
        return ()
    return (option(f"stage.{stage['name']}.losses.mse", "1.0"),)
