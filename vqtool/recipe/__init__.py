"""Recipes: text to checked values, every problem at once and with its place. Names are loaded when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtool.recipe.options import Option, Options, options_of
    from vqtool.recipe.recipe import load, parse
    from vqtool.recipe.spec import EvaluateOptions, LossSpec, PartSpec, Recipe, ScheduleSpec, StageSpec, TrainOptions

__all__ = [
    "EvaluateOptions",
    "LossSpec",
    "Option",
    "Options",
    "PartSpec",
    "Recipe",
    "ScheduleSpec",
    "StageSpec",
    "TrainOptions",
    "load",
    "options_of",
    "parse",
]


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: `vqtool.recipe.thresholds` alone needs no pydantic (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module `vqtool.recipe` has no attribute `{name}`")
    home = {"Option": "options", "Options": "options", "options_of": "options", "load": "recipe", "parse": "recipe"}
    return getattr(importlib.import_module(f"vqtool.recipe.{home.get(name, 'spec')}"), name)
