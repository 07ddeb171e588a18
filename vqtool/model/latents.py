"""The recipe of a quantizer whose encoder and decoder are elsewhere: it trains on latents as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vqtool.recipe.recipe import parse
from vqtool.recipe.spec import Recipe

TEXT = """\
title = {title}

[data]
kind = "latents"
path = "latents.npy"

[encoder]
kind = "identity"

[quantizer]
{quantizer}

[decoder]
kind = "identity"

[evaluate]
metrics = ["relative-error", "codes"]

[diagnose]  # codes of latents lie inside of them: their range is smaller
range_drift_warn = "none"
range_drift_fail = "none"

[[stage]]
name = "quantizer"
task = "autoencode"
steps = 200
losses = {losses}
"""


def latents_recipe(title: str, quantizer: Mapping[str, Any], weights: Mapping[str, float]) -> Recipe:
    """The recipe that trains a quantizer, as a recipe's table has it, by the error of latents and its own terms."""
    options = "\n".join(f"{key} = {toml(value)}" for key, value in quantizer.items())
    return parse(TEXT.format(title=toml(title), quantizer=options, losses=toml({"mse": 1.0, **weights})))


def with_latents(recipe: Recipe, path: Path, layout: str) -> Recipe:
    """The recipe with the latents of a file, whose axes are `layout`, as its data."""
    options = {**recipe.data.options, "path": path, "layout": layout}
    return replace(recipe, data=replace(recipe.data, options=options))


def toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
