"""Quantizers of other libraries as ours, with the same codes to the last index, and back with the same tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.api import Quantizer
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.foreign.families import ForeignCodebook, codebooks_in, fixed_grids, natural
from vqtool.foreign.plans import FAMILIES, KEYS, Family, Hints, Plan, hints_of
from vqtool.foreign.tensors import Stored, tensors_in, tensors_of
from vqtool.model.latents import latents_recipe
from vqtool.quantizers.core.composable import Composable
from vqtool.recipe.spec import Recipe

Source = nn.Module | Mapping[str, Any] | Path
OWN = "vqtool"
ALONE = "quantize."  # what a module is called that was given alone


@dataclass(frozen=True, slots=True)
class Origin:
    """The quantizer that one of ours was converted from."""

    family: Family
    root: str  # what the names of its tensors begin with in its model
    tensors: Mapping[str, Tensor]  # its tensors, by their names behind that
    hints: Hints
    plan: Plan


def origin(source: Source, part: str | None = None, hints: Hints | None = None) -> Origin:
    """The quantizer of another library in a module, a state dict, a file or a folder."""
    state: Mapping[str, Any] = {}
    if isinstance(source, Path):
        stored, what, prefix = tensors_of(source), f"`{source}`", ""
    else:
        state = source.state_dict() if isinstance(source, nn.Module) else source
        stored = {ALONE + name: one for name, one in tensors_in(state).items()}
        what, prefix = type(source).__name__, ALONE
    family, root, books = chosen(codebooks_in(stored), prefix, part, what, fixed_grids(stored))
    tensors = {name.removeprefix(root): as_stored(state.get(name.removeprefix(prefix)), one)
               for name, one in stored.items() if name.startswith(root)}  # fmt: skip
    root = root.removeprefix(prefix)
    if hints is None:
        hints = Hints()
        if isinstance(source, nn.Module):
            hints = hints_of(family.name, source.get_submodule(root.removesuffix(".")))
    if hints.cosine is None:
        hints.cosine = family.key == KEYS[-1] and all(book.cosine for book in books)
    return planned(family, root, tensors, hints)


def as_stored(tensor: Any, stored: Stored) -> Tensor:
    """A tensor in its own type, where there is one; what was read of a file else."""
    return tensor.detach().cpu().clone() if isinstance(tensor, Tensor) else torch.tensor(stored.read())


def planned(family: Family, root: str, tensors: Mapping[str, Tensor], hints: Hints) -> Origin:
    """The origin with its plan."""
    matches = [re.fullmatch(family.books, name) for name in sorted(tensors, key=natural)]
    try:
        plan = family.plan(tensors, [match for match in matches if match is not None], hints)
    except (KeyError, IndexError, ValueError) as error:  # a tensor is missing, or of another shape
        raise VqtoolError(f"this looks like a quantizer of {family.name} without all of its tensors: {error}",
                          hint="vqtool show lists them") from error  # fmt: skip
    return Origin(family, root, tensors, hints, plan)


def chosen(
    books: list[ForeignCodebook], prefix: str, part: str | None, what: str, grids: Mapping[str, str]
) -> tuple[Family, str, list[ForeignCodebook]]:
    """The one quantizer among the codebooks of a model: its family, what its names begin with, its codebooks."""
    found: dict[tuple[str, str], list[ForeignCodebook]] = {}
    others = {book.family for book in books} | set(grids.values())
    for book in books:
        for family in FAMILIES:
            match = re.fullmatch(rf"(?P<root>(?:.*?\.)??)(?:{family.books})", book.tensor)
            if family.name == book.family and match is not None:
                found.setdefault((family.name, match["root"]), []).append(book)
    parts = sorted(root.removeprefix(prefix).rstrip(".") for _, root in found)
    if part is not None and found and part.rstrip(".") not in parts:
        raise VqtoolError(f"{what} holds no quantizer `{part}`", hint="--part " + " or --part ".join(parts))
    if part is not None:
        found = {key: own for key, own in found.items() if key[1].removeprefix(prefix).rstrip(".") == part.rstrip(".")}
    if len(found) == 1:
        (name, root), own = next(iter(found.items()))
        return next(family for family in FAMILIES if family.name == name), root, own
    if found:
        raise VqtoolError(f"{what} holds {len(parts)} quantizers", hint="--part " + " or --part ".join(parts))
    raise VqtoolError(f"{what} holds no quantizer that vqtool can convert", hint=why_not(sorted(others)))


def why_not(families: list[str]) -> str:
    """What was found in place of a quantizer that can be converted."""
    reasons = {
        "wav2vec 2.0": "its codes are chosen by logits of another width than the latents' (ours: `Gumbel`)",
        "FSQ": "FSQ has no codebook to convert (ours: `FSQ(dim, levels=...)`)",
        "LFQ": "LFQ has no codebook to convert (ours: `LFQ(dim, bits=...)`)",
        "vqtool": "it is vqtool's own",
    }
    known = f"those of {', '.join(family.name for family in FAMILIES)} are known"
    return "; ".join([*(f"found {name}: {reasons.get(name, 'it has no equal here')}" for name in families), known])


def quantizer_of(found: Origin) -> Composable:
    """Our quantizer with the origin's tensors, in evaluation."""
    spec = recipe_of(found).parts["quantizer"]
    quantizer: Composable = catalog().make("quantizer", spec.kind, spec.options, found.plan.dim)
    quantizer.load_state_dict(taken(found))
    quantizer.layout, quantizer.origin = found.plan.layout, found
    return quantizer.eval()


def taken(found: Origin) -> dict[str, Tensor]:
    """Our tensors from the origin's."""
    return {name: tensor for slot in found.plan.slots for name, tensor in slot.take(found.tensors).items()}


def given_back(ours: Mapping[str, Tensor], found: Origin) -> dict[str, Tensor]:
    """The origin's tensors, with ours in the place of those that changed.

    Raises:
        VqtoolError: ours are of other codebooks.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in taken(found).items()}
    given = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    if expected != given:
        name = min(n for n in expected.keys() | given.keys() if expected.get(n) != given.get(n))
        sizes = [list(given[name]) if name in given else "absent", list(expected.get(name, ())) or "absent"]
        raise VqtoolError(f"the quantizers differ: `{name}` is {sizes[0]} here, and {sizes[1]} in that of "
                          f"{found.family.name}", hint="they need the same codebooks and maps")  # fmt: skip
    theirs = dict(found.tensors)
    ours = {name: tensor.detach().cpu() for name, tensor in ours.items()}
    for slot in found.plan.slots:
        if any(not torch.equal(ours[name], tensor) for name, tensor in slot.take(theirs).items()):
            slot.give(ours, theirs)
    return theirs


def origin_of(quantizer: Quantizer, to: str, into: Source | None = None, part: str | None = None) -> Origin:
    """What a quantizer was converted from, or what it shall go into, if that is of the library `to`."""
    found = getattr(quantizer, "origin", None)
    if into is not None:
        there = origin(into, part, found.hints if isinstance(found, Origin) and found.family.key == to else None)
        if (other := there.family.key) != to:
            raise VqtoolError(f"that is a quantizer of {other}, not of {to}", hint=f"--to {other}")
        return there
    if not isinstance(found, Origin) or found.family.key != to:
        was = f"was converted from {found.family.key}" if isinstance(found, Origin) else "was not converted"
        hint = f"it can go into a quantizer of {to} with the same codebooks: --into, or `into=` in Python"
        raise VqtoolError(f"this quantizer {was}, not from {to}", hint=hint)
    return found


def recipe_of(found: Origin) -> Recipe:
    """A recipe that trains the quantizer on latents as they are."""
    learned = "learned" in str(found.plan.quantizer)
    weights = {"commitment": 0.25} | ({"codebook": 1.0} if learned else {})
    return latents_recipe(f"a quantizer of {found.family.name}", found.plan.quantizer, weights)
