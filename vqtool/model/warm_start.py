"""Starting a run from another's checkpoint: parts of the same role, kind and shapes go on from what they learned."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from vqtool.errors import VqtoolError
from vqtool.model.checkpoint import Checkpoint, require_finite
from vqtool.model.format import PARTS, under
from vqtool.model.load import set_knobs, use_current_names
from vqtool.model.model import Model


def warm_start(model: Model, read: Checkpoint, what: str, *, exclude: Collection[str] = ()) -> list[str]:
    """Fill the parts that the checkpoint `what` has too, with their fitted constants and knobs; returns their roles.

    Parts of the roles `exclude` stay as they are.

    Raises:
        VqtoolError: a part of the same role differs in kind or shapes, or none is the same: nothing is changed then.
    """
    use_current_names(model, read.tensors)
    learned = _by_role(read)
    kinds = {role: part["kind"] for role, part in read.metadata.get("resolved", {}).get("parts", {}).items()}
    unknown = sorted(set(exclude) - set(model.parts))
    if unknown:
        raise VqtoolError(f"this recipe has no part {', '.join(f'[{role}]' for role in unknown)} to start anew",
                          hint="there are " + ", ".join(f"[{role}]" for role in model.parts))  # fmt: skip
    both = [role for role in model.parts
            if role in learned and role not in exclude and model.parts[role].state_dict()]  # fmt: skip
    wrong = [difference for role in both for difference in _difference(model, role, kinds.get(role, ""), learned[role])]
    if wrong:
        raise VqtoolError(
            f"`{what}` does not fit this recipe: {'; '.join(wrong)}",
            hint=f"give the part the options it has there (vqtool show {what}), or start it anew: --fresh ROLE",
        )
    if not both:
        raise VqtoolError(
            f"`{what}` has no part of this recipe: it holds {', '.join(f'[{role}]' for role in learned) or 'none'}"
        )
    require_finite({f"{PARTS}{role}.{name}": t for role in both for name, t in learned[role].items()}, what)
    for role in both:
        model.parts[role].load_state_dict(learned[role])
    others = {name.partition(".")[0] for name in read.metadata.get("knobs", {})} - set(both)
    set_knobs(model, read, what, exclude=others)
    return both


def _by_role(read: Checkpoint) -> dict[str, dict[str, Tensor]]:
    """The checkpoint's tensors by role, under the names they have within their part."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in under(PARTS, read.tensors).items():
        role, _, rest = name.partition(".")
        found.setdefault(role, {})[rest] = tensor
    return found


def _difference(model: Model, role: str, kind: str, learned: dict[str, Tensor]) -> list[str]:
    """What keeps a part from going on: another kind, other tensors or other shapes; at most one sentence."""
    wanted = model.recipe.parts.get(role)
    if wanted is not None and kind and wanted.kind != kind:
        return [f"[{role}] is `{kind}` there and `{wanted.kind}` here"]
    here = model.parts[role].state_dict()
    for name in sorted(here.keys() | learned.keys()):
        there_is, here_is = (tuple(t[name].shape) if name in t else None for t in (learned, here))
        if there_is != here_is:
            sizes = [
                f"{'x'.join(map(str, s)) or 'a number'}" if s is not None else "absent" for s in (there_is, here_is)
            ]
            return [f"[{role}] `{name}` is {sizes[0]} there and {sizes[1]} here"]
        if learned[name].dtype != here[name].dtype:
            return [f"[{role}] `{name}` is {learned[name].dtype} there and {here[name].dtype} here"]
    return []
