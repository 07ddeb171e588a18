"""Types in words: `tuple[int, ...]` with `MinLen(1)` is "list of whole numbers, at least 1 of them"."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types as bounds

_PLAIN: Mapping[Any, str] = {
    int: "int",
    float: "float",
    bool: "bool",
    str: "string",
    Path: "path",
    types.NoneType: '"none"',
}


def type_text(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """An option's type and bounds in words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return type_text(inner[0], [*inner[1:], *metadata])
    limits = _bounds(metadata)
    if origin in (typing.Union, types.UnionType):
        text = " or ".join(type_text(one) for one in inner)
    elif origin is Literal:
        text = " or ".join(json.dumps(one) for one in inner)
    elif origin in (tuple, list):
        text = _list_text(inner)
    elif origin is dict:
        text = f"table of {type_text(inner[1])}"
    else:
        text = _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return f"{text}{limits}"


def _list_text(inner: tuple[Any, ...]) -> str:
    if (len(inner) == 2 and inner[1] is Ellipsis) or len(inner) == 1:
        return f"list of {type_text(inner[0])}"
    return f"list of {len(inner)}: {', '.join(type_text(one) for one in inner)}"


def _bounds(metadata: Iterable[Any]) -> str:
    """` > 0, < 1`: the limits among an annotation's metadata."""
    parts = []
    for one in metadata:
        whole = [*one] if isinstance(one, bounds.GroupedMetadata) else [one]
        for limit in whole:
            for kind, sign in ((bounds.Gt, ">"), (bounds.Ge, ">="), (bounds.Lt, "<"), (bounds.Le, "<=")):
                if isinstance(limit, kind):
                    parts.append(f"{sign} {_number(getattr(limit, kind.__name__.lower()))}")
            if isinstance(limit, bounds.MinLen):
                parts.append(f"at least {limit.min_length}")
            if isinstance(limit, bounds.MultipleOf):
                parts.append(f"a multiple of {limit.multiple_of}")
    return f" {', '.join(parts)}" if parts else ""


def _number(limit: Any) -> str:
    """`0` for 0.0 too: of two equal annotations `typing` keeps the one it met first, so a text must not differ."""
    return str(int(limit)) if isinstance(limit, float) and limit.is_integer() else str(limit)
