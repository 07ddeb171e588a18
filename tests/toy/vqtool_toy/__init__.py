"""A small plugin for tests: one part of each role that a recipe needs, declared by "module:Class"."""

from vqtool.catalog import Component, hookimpl

KINDS = {
    "data": "Waves",
    "encoder": "Thin",
    "quantizer": "Round",
    "decoder": "Thick",
    "task": "Squeeze",
    "loss": "Gap",
    "schedule": "Ramp",
    "metric": "Count",
    "baseline": "Zero",
}


@hookimpl
def vqtool_components() -> list[Component]:
    """Nine toys, called `toy`, and a second quantizer."""
    toys = [Component(role, "toy", f"vqtool_toy.parts:{name}", f"A toy {role}.") for role, name in KINDS.items()]
    return [*toys, Component("quantizer", "toy-two", "vqtool_toy.parts:Other", "Another toy.")]
