"""Where a figure becomes a finding: defaults, where they come from, and what a recipe's `[diagnose]` says instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from vqtool.catalog import Catalog, catalog
from vqtool.catalog.limit import Limit

LOOKS = 20  # at the codebooks in a stage, where the recipe does not say every how many steps
CLOSEST, FARTHEST = 10, 1000  # steps between two of them
OWN = (
    Limit(
        "collapse",
        "(perplexity - 1) over (codes that uniform use would hit - 1)",
        0.10, 0.05, "collapsed runs that people report: perplexity 2 of 320 (fairseq issue 1850), 9 of 256", "low",
    ),
    Limit(
        "dead-codes",
        "share of codes that more tokens would not hit either (Chao 1984)",
        0.33, 0.40, "runs that people report as broken: 40 % dead and more (vector-quantize-pytorch issue 205)",
    ),
    Limit(
        "dead-level",
        "(perplexity - 1) over (codes that uniform use would hit - 1), of one codebook while others are healthy",
        0.10, 0.05, "as for `collapse`", "low",
    ),
    Limit(
        "duplicate-codes",
        "share of the codes (of those in use, if known) with a twin: within 5 % of the usual distance of other codes",
        0.10, 0.50, "k-means leaves none on data that hold more points than codes",
    ),
    Limit(
        "never-moved",
        "share of codes that are still where uniform values within ±1/K put them, of codebooks whose use is not known",
        0.33, 0.40, "as for `dead-codes`: a code that no token chose is not trained",
    ),
    Limit(
        "exploding-norms",
        "length of the longest code over the median, or of a level over those before it, or the values' rms over 100",
        30.0, 300.0, "trained codebooks stay below 10; a later level has less left to encode",
    ),
    Limit(
        "frozen-codebook",
        "share of the codes chosen in a step that moved by its update",
        0.50, 0.10, "a moving average or an optimizer moves every code that was chosen", "low",
    ),
    Limit(
        "outputs-fed",
        "share of the codes chosen in a step that moved by its update, while their use is being followed",
        0.50, 0.10, "van den Oord et al. 2017, appendix A.1: sums are taken over inputs", "low",
    ),
    Limit(
        "soft-hard-gap",
        "loss of the deployed (hard) path over that of the trained (soft) path, minus 1",
        0.50, 1.00, "annealed runs end within a few per cent; a soft path trained alone loses half (our own runs)",
    ),
    Limit(
        "soft-hard-accuracy",
        "accuracy of the soft path minus that of the deployed one", 0.05, 0.20,
        "one point where trained for it; 36 where the path trained is not the one deployed (our own runs)",
    ),
    Limit(
        "range-drift",
        "spread of the output over that of the signal, or its inverse where that is less",
        0.80, 0.60, "trained codecs stay within 0.9 and 1.1; a reported broken one had 0.35", "low",
    ),
    Limit(
        "dc-offset",
        "mean of the output's error over the signal's spread", 0.20, 0.50, "reported broken codecs: 0.31 and 1.38",
    ),
    Limit(
        "too-uniform",
        "(perplexity - 1) over (codes that uniform use would hit - 1), the least of a contrastive task's codebooks",
        0.95, None, "natural signals are not uniform: trained codes keep 50 to 80 % (our own runs)",
    ),
    Limit(
        "dimension-collapse",
        "(effective rank of the code vectors - 1) over (the dimensions that they could fill - 1)",
        0.05, None, "trained codebooks fill 14 % and more (our own runs)", "low",
    ),
    Limit(
        "no-negatives",
        "negatives that a position is really compared with", 2.0, 1.0,
        "wav2vec 2.0 takes 100; below 1 there is nothing to compare", "low",
    ),
    Limit(
        "codes-ignored",
        "error with the codes of another signal over the error with its own", 1.05, None,
        "equal errors: nothing of the codes reaches the output", "low",
    ),
    Limit(
        "perplexity-falling",
        "validation perplexity now over its highest in this stage", 0.50, 0.20,
        "half of the codes in use lost while training", "low",
    ),
    Limit(
        "commitment-growing",
        "commitment loss now over its lowest in this stage, where the quantization error grows with it", 4.0, None,
        "runs that people report: vector-quantize-pytorch issues 69 and 238",
    ),
    Limit(
        "loss-stuck",
        "dB by which the output is better than the signal's mean, of a loss that does not fall", 1.0, 0.1,
        "0 dB is what a constant gives; a reported codec stayed below it for 20 epochs", "low",
    ),
    Limit(
        "repeated-tokens",
        "share of all tokens that repeat the token before", 0.90, None, "held notes and silence aside, tokens change",
    ),
    Limit(
        "discriminator-wins",
        "share of the discriminator's judgements that are right, the least of the last three rows",
        0.97, 0.999, "balanced players end at 70 to 80 % (our own runs); at 100 % the gradient of the hinge is zero",
    ),
    Limit(
        "feature-matching-flat",
        "change of the feature matching loss from the first third of its rows to the last, relative",
        0.01, None, "it falls by half and more while a decoder learns (our own runs)", "low",
    ),
    Limit(
        "loss-ratio",
        "losses that read the discriminator over the others: their pushes on the output where balanced, else values",
        10.0, 100.0, "EnCodec weights them 3 and 3 to 1.1 in all, VQGAN 0.8 to 1",
    ),
)  # fmt: skip


def every(recipe: Mapping[str, Any], steps: int) -> int:
    """Steps between two looks at the codebooks in a stage of `steps`: the recipe's, else so that there are `LOOKS`."""
    given = (recipe.get("diagnose") or {}).get("every")
    return int(given) if given is not None else min(max(steps // LOOKS, CLOSEST), FARTHEST)


def limits() -> Mapping[str, Limit]:
    """The limits of every finding by its id: vqtool's own and those of plugins."""
    return _limits(catalog())


@lru_cache(maxsize=1)
def _limits(found: Catalog) -> Mapping[str, Limit]:
    own = {limit.id: limit for limit in OWN}
    of_plugins = found.hooks.collect("vqtool_limits", Limit)
    return own | {limit.id: limit for limit in of_plugins if limit.id not in own}


def keys() -> dict[str, tuple[str, float | None]]:
    """Every key of `[diagnose]` that is a threshold: its meaning and its default."""
    found = {}
    for name, limit in limits().items():
        for severity, value in (("warn", limit.warn), ("fail", limit.fail)):
            side = "at most" if limit.worse == "low" else "at least"
            found[key(name, severity)] = (f"`{name}` is a {severity} where this is {side}: {limit.figure}", value)
    return found


def key(name: str, severity: str) -> str:
    """The recipe's key of a threshold."""
    return f"{name.replace('-', '_')}_{severity}"


def limit_of(name: str, recipe: Mapping[str, Any]) -> Limit:
    """The limit of a finding under a resolved recipe; a threshold that it changed has the recipe as its source."""
    default = limits()[name]
    given = recipe.get("diagnose") or {}
    warn, fail = (given.get(key(name, s), d) for s, d in (("warn", default.warn), ("fail", default.fail)))
    changed = (warn, fail) != (default.warn, default.fail)
    return replace(default, warn=warn, fail=fail, source="the recipe's [diagnose]") if changed else default
