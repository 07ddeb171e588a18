"""Fixes that one can paste: options of `vqtool train`, only those that the recipe takes, and commands.

A model that no recipe made (another library's checkpoint, a loop of one's own) gets the same advice in words.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from vqtool.catalog import catalog
from vqtool.diagnosis.report import Codebook, Report


def option(key: str, value: object) -> str:
    """`-s KEY=VALUE`, quoted for a shell; it is read as by `vqtool train RECIPE -s KEY=VALUE`."""
    return f"-s {shlex.quote(f'{key}={value}')}"


def command(*words: object) -> str:
    """A vqtool command, quoted for a shell."""
    return shlex.join(["vqtool", *map(str, words)])


DIVERSITY = {"diversity": 1.0, "log-perplexity": 0.4, "hf": 1.0}  # terms, and weights that keep codes in use
HIGH = 0.02  # a learning rate above this throws an encoder about, with AdamW
USUAL = 3e-3  # one that such models are trained with
FORGOTTEN = 2.5  # time constants of the moving average after which a code that is not used has less than 0.1 left
KMEANS = "start the codes with k-means over encoder outputs of many different inputs"
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
    """Reinitialise dead codes, where that is off or hardly ever happens; a slow average must forget them sooner."""
    now = report.number("quantizer", "revive_below")
    if now is None or not by_average(report):
        return ()
    if now < below:
        return (option(report.key("quantizer", "revive_below"), f"{below:g}"),)
    return faster_codebook(report) if too_slow(report) else ()


def too_slow(report: Report, decay: float | None = None) -> bool:
    """Whether a code that is not used any more keeps its place in the moving average for most of the stage."""
    decay = decay if decay is not None else report.number("quantizer", "decay") or 0.0
    return (report.trained_with("steps") or math.inf) * (1 - decay) < FORGOTTEN


def by_average(report: Report) -> bool:
    """Whether the codes follow a moving average of their inputs."""
    return report.option("quantizer", "decay") is not None and report.option("quantizer", "codes") in (None, "ema")


@in_words(KMEANS)
def better_start(report: Report) -> tuple[str, ...]:
    """Start the codes at cluster centres of the data."""
    random = report.option("quantizer", "start") == "random"
    return (option(report.key("quantizer", "start"), "kmeans"),) if random else ()


@in_words("add a loss that rewards the use of all codes (the entropy of the mean assignment) with a small weight")
def diversity(report: Report) -> tuple[str, ...]:
    """Weight a loss that rewards the use of all codes, where the quantizer has one and none has weight enough."""
    wanted = {term: enough(report, term) for term in DIVERSITY if report.gives(term)}
    if any(report.weight(term) >= weight / 3 for term, weight in wanted.items()):
        return ()
    return tuple(line for term, weight in wanted.items() for line in weighted(report, term, weight))


def enough(report: Report, term: str) -> float:
    """The weight of a term with which codes stay in use: not less than that of what rewards sharp choices."""
    return max(DIVERSITY[term] * (3 if report.grid else 1), report.weight("confidence"))


def weighted(report: Report, term: str, weight: float) -> tuple[str, ...]:
    """Give a term of the quantizer at least this weight, where the quantizer has the term."""
    if not report.recipe:
        return (f"give the {term} loss a weight of {weight:g}",)
    if not report.gives(term) or report.weight(term) >= weight or not report.stage():
        return ()
    return (option(f"stage.{report.stage()['name']}.losses.{term}", f"{weight:g}"),)


def weaker(report: Report, term: str) -> tuple[str, ...]:
    """A smaller weight for a term of the quantizer: the usual one where it is above, else a third."""
    now = report.weight(term)
    wanted = enough(report, term) if now > 1.5 * enough(report, term) else now / 3
    return (option(f"stage.{report.stage()['name']}.losses.{term}", f"{wanted:.2g}"),)


@in_words("use a smaller codebook")
def fewer_codes(report: Report, *books: Codebook) -> tuple[str, ...]:
    """Make the codebook as small as what is used of it: the power of two nearest to the perplexity."""
    if report.option("quantizer", "codebook_size") is None or not books:
        return ()
    even = max(book.measures.get("perplexity", book.size) for book in books)
    wanted = 1 << max(1, round(math.log2(max(even, 2))))
    smaller = wanted < min(book.size for book in books)
    return (option(report.key("quantizer", "codebook_size"), wanted),) if smaller else ()


@in_words("let the moving average follow faster: a decay of 0.99 or 0.95")
def faster_codebook(report: Report) -> tuple[str, ...]:
    """Let the moving average follow faster: the next lower decay that forgets within the stage."""
    decay = report.number("quantizer", "decay")
    lower = [d for d in (0.99, 0.95, 0.9) if decay is not None and d < decay]
    if not lower or not by_average(report):
        return ()
    return (option(report.key("quantizer", "decay"), next((d for d in lower if not too_slow(report, d)), lower[-1])),)


@in_words("lower the encoder's learning rate")
def learning_rate(report: Report, above: float = HIGH) -> tuple[str, ...]:
    """A usual learning rate, or a third of it, for the stage that trains the quantizer, where it is `above`."""
    rate = report.trained_with("lr") or 0.0
    wanted = min(USUAL, 0.3 * rate)
    return (option(f"stage.{report.stage()['name']}.lr", f"{wanted:.2g}"),) if rate > above else ()


@in_words("raise the learning rate")
def higher_rate(report: Report) -> tuple[str, ...]:
    """Ten times the learning rate, at most 0.01, or a usual one, where it is far lower."""
    rate = report.trained_with("lr") or 0.0
    wanted = USUAL if rate < USUAL / 30 else min(0.01, 10 * rate)
    return (option(f"stage.{report.stage()['name']}.lr", f"{wanted:.2g}"),) if 0 < rate < wanted / 2 else ()


@in_words("normalise each window to the same scale before the encoder")
def normalise(report: Report) -> tuple[str, ...]:
    """A reversible norm of each window, where the recipe has none."""
    fits = "norm" not in report.recipe["parts"] and "revin" in catalog().names("norm")
    return ("-s norm.kind=revin",) if fits else ()


@in_words("use narrower latents, or search the codes in a low-dimensional projection of them")
def narrower(report: Report, rank: float) -> tuple[str, ...]:
    """A search in about twice as many dimensions as the codes fill, where the quantizer or the encoder has a width."""
    width = 1 << math.ceil(math.log2(max(8.0, 2 * rank)))
    if report.option("quantizer", "code_dim") is not None:
        return (option(report.key("quantizer", "code_dim"), width),)
    return (option(report.key("encoder", "dim"), width),) if report.number("encoder", "dim") else ()


@in_words("clip the gradient norm to 1")
def clip(report: Report) -> tuple[str, ...]:
    """Clip gradients, or clip them to a smaller norm."""
    if not report.stage():
        return ()
    now = report.trained_with("clip")
    wanted = 1.0 if not now or now > 1 else 0.3 * now
    return (option(f"stage.{report.stage()['name']}.clip", f"{wanted:.2g}"),)


@in_words("compute the quantizer in float32")
def full_precision(report: Report) -> tuple[str, ...]:
    """Compute in 32 bits, where less is used."""
    low = report.trained_with("precision") not in (None, "fp32")
    return (option(f"stage.{report.stage()['name']}.precision", "fp32"),) if low else ()


@in_words("")
def improve(report: Report, *, merge: bool = False) -> tuple[str, ...]:
    """The command that reinitialises dead codes of a checkpoint, where its codes can be moved one by one."""
    movable = report.quantizer.get("movable", report.quantizer.get("nearest", True))
    has_vectors = any(book.vectors is not None for book in report.codebooks)
    if not (movable and has_vectors and report.source.suffix == ".safetensors"):
        return ()
    latents = ["--latents", "latents.npy"] if report.recipe.get("data", {}).get("kind") == "latents" else []
    return (command("improve", report.source, *latents, *["--merge"] * merge),)


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
    """Train the path that is deployed: a temperature that falls further, the hard value, else losses for both."""
    stage, knobs = report.stage(), report.quantizer.get("knobs", ())
    if not stage:
        return ()
    schedule = f"stage.{stage['name']}.schedule.quantizer"
    known = {s["target"]: s["options"] for s in stage.get("schedules", ())}
    lines = []
    if "temperature" in knobs:
        ramp = known.get("quantizer.temperature", {})
        start = ramp.get("from") or report.number("quantizer", "temperature") or 1.0
        end = min(ramp.get("to") or start, start) / 100
        lines.append(option(f"{schedule}.temperature", f'{{ kind = "geometric", from = {start:g}, to = {end:g} }}'))
    if "hard" in knobs and "quantizer.hard" not in known:
        lines.append(option(f"{schedule}.hard", '{ kind = "linear", from = 0.0, to = 1.0 }'))
    return tuple(lines) or (*weighted(report, "commitment", 0.25), *weighted(report, "consistency", 0.5))


@in_words("hide more tokens, and draw more of them as negatives")
def more_negatives(report: Report) -> tuple[str, ...]:
    """More candidates for a contrastive task: hidden tokens, drawn negatives, and nearer ones."""
    stage = report.stage()
    options = (stage.get("task") or {}).get("options", {})
    lines: list[tuple[str, float]] = []
    if options.get("negatives") is not None and options["negatives"] < 100:
        lines.append(("negatives", 100))
    if options.get("min_distance", 1) > 1:
        lines.append(("min_distance", 1))
    if options.get("hidden", 0.65) < 0.65:
        lines.append(("hidden", 0.65))
    return tuple(option(f"stage.{stage['name']}.options.{name}", value) for name, value in lines)


@in_words("add an l1 or mse loss on the output itself")
def waveform_loss(report: Report) -> tuple[str, ...]:
    """A loss on the waveform itself, where the stage has none."""
    stage = report.stage()
    if not stage or any(loss["name"] in ("mse", "l1") for loss in stage["losses"]):
        return ()
    return (option(f"stage.{stage['name']}.losses.mse", "1.0"),)
