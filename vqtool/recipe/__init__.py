"""Recipes: text to checked values, every problem at once and with its place."""

from vqtool.recipe.options import Option, Options, options_of
from vqtool.recipe.recipe import load, parse
from vqtool.recipe.resolved import from_resolved
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
    "from_resolved",
    "load",
    "options_of",
    "parse",
]
