"""Command lines so plain that typer is not asked: it would load pydantic to take a path for a path (0.1 s)."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import typer

_Argument = type(typer.Argument())
_PLAIN = (Path, str, bool)
_SPECIAL = ("callback", "parser", "default_factory", "envvar")  # what typer would have to look after


def plain_call(words: Sequence[str], signature: inspect.Signature) -> dict[str, Any] | None:
    """The values of a command's parameters, exactly as typer would give them; None for what needs typer.

    Plain are paths, strings and switches, each option by its full name with its value as the next word. Whatever else
    there is (help, `--out=FILE`, `-qs`, numbers, choices, mistakes) is typer's.
    """
    options, places = _parameters(signature)
    given: dict[str, Any] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        parameter = options.get(word) if word.startswith("-") else places.pop(0) if places else None
        kind, many = _kind(parameter)
        if parameter is None or kind not in _PLAIN or not word:
            return None
        if kind is bool:
            given[parameter.name] = True
            continue
        if word.startswith("-"):
            if not queue or not queue[0] or queue[0].startswith("-"):
                return None
            word = queue.pop(0)
        given[parameter.name] = [*given.get(parameter.name, []), kind(word)] if many else kind(word)
    for parameter in signature.parameters.values():
        if parameter.name not in given and parameter.default is inspect.Parameter.empty:
            return None
    return {name: given.get(name, parameter.default) for name, parameter in signature.parameters.items()}


def _parameters(signature: inspect.Signature) -> tuple[Mapping[str, inspect.Parameter], list[inspect.Parameter]]:
    """The options by each of their names, and the arguments in their order."""
    options: dict[str, inspect.Parameter] = {}
    places = []
    for parameter in signature.parameters.values():
        (info,) = parameter.annotation.__metadata__
        if isinstance(info, _Argument):
            places.append(parameter)
        else:
            options |= dict.fromkeys(names_of(info), parameter)
    return options, places


def names_of(option: Any) -> list[str]:
    """The names of an option in `Annotated`, where typer holds the first of them as its default."""
    return [name for name in (option.default, *(option.param_decls or ())) if isinstance(name, str)]


def _kind(parameter: inspect.Parameter | None) -> tuple[Any, bool]:
    """What a parameter holds, without its None, and whether it may be given many times."""
    if parameter is None:
        return None, False
    annotation = parameter.annotation
    if any(getattr(annotation.__metadata__[0], name, None) is not None for name in _SPECIAL):
        return None, False
    kind: Any = annotation.__origin__
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [k for k in get_args(kind) if k is not type(None)]
        kind = kinds[0] if len(kinds) == 1 else None
    return (get_args(kind)[0], True) if get_origin(kind) is list else (kind, False)
