"""Recipes: text to checked values, every problem at once and with its place."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtool.recipe.options import Option, Options, options_of
    from vqtool.recipe.recipe import load, parse
    from vqtool.recipe.spec import EvaluateOptions, LossSpec, PartSpec, Recipe, ScheduleSpec, StageSpec, TrainOptions

_FROM = {"Option": "options", "Options": "options", "options_of": "options", "load": "recipe", "parse": "recipe"}

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
    """Import a name when it is first used: `vqtool diagnose` reads thresholds only, without pydantic."""
    if name not in __all__:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(importlib.import_module(f"{__name__}.{_FROM.get(name, 'spec')}"), name)
