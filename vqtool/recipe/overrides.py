"""Overrides: `-s quantizer.levels=4 -s stage.tokenizer.steps=100`, stages addressed by name."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from vqtool.errors import VqtoolError
from vqtool.recipe.places import Key, Places, key_parts
from vqtool.suggest import did_you_mean, listed
from vqtool.untrusted import toml_table


def parse(text: str) -> tuple[list[str], Any]:
    """`key.path=value` -> the parts of the key and the value, read as TOML, else as a plain string.

    Raises:
        VqtoolError: there is no `=`, or no key before it.
    """
    at = text.find("=")
    while at >= 0:
        parts = key_parts(text[:at].strip())
        if parts is not None:
            return parts, _value(text[at + 1 :].strip())
        at = text.find("=", at + 1)
    raise VqtoolError(f"`{text}` is not an override", hint="KEY=VALUE, as in -s quantizer.levels=4", where=f"-s {text}")


def _value(text: str) -> Any:
    try:
        table = toml_table(f"v = {text}")
    except ValueError:
        return text
    value = table.get("v")
    return text if len(table) != 1 or isinstance(value, datetime.date | datetime.time) else value


def apply(table: dict[str, Any], overrides: Iterable[str], places: Places) -> list[VqtoolError]:
    """Change a recipe's table in place and note where from; returns what could not be applied."""
    errors = []
    for text in overrides:
        try:
            parts, value = parse(text)
            key = _key(table, parts, text)
            _put(table, key, value, text)
            places.override(key, text)
        except VqtoolError as error:
            errors.append(error)
    return errors


def _key(table: dict[str, Any], parts: list[str], text: str) -> Key:
    """The path of an override's key: a stage's index for its name, a knob's dotted name as one key."""
    if parts[0] != "stage":
        return tuple(parts)
    stages = [stage for stage in table.get("stage", []) if isinstance(stage, dict)]
    names = [str(stage.get("name", stage.get("task", ""))) for stage in stages]
    if len(parts) < 3 or parts[1] not in names:
        hint = "stage.NAME.KEY=VALUE; the stages are " + listed(names)
        near = did_you_mean(parts[1], names, otherwise=hint) if len(parts) > 1 else hint
        named = f"there is no stage called `{parts[1]}`" if len(parts) > 2 else "an override of a stage needs its name"
        raise VqtoolError(named, hint=near, where=f"-s {text}")
    rest = parts[2:]
    if rest[0] == "set" and len(rest) > 1:
        rest = ["set", ".".join(rest[1:])]
    elif rest[0] == "schedule" and len(rest) > 2 and "." not in rest[1] and rest[1] != "lr":
        rest = ["schedule", ".".join(rest[1:3]), *rest[3:]]
    return ("stage", names.index(parts[1]), *rest)


def _put(table: Any, key: Key, value: Any, text: str) -> None:
    for part in key[:-1]:
        if isinstance(table, dict):
            table = table.setdefault(part, {})
        else:
            table = table[part] if isinstance(part, int) else table
        if not isinstance(table, dict | list):
            raise VqtoolError(f"`{part}` is not a table, so it has no `{key[-1]}`", where=f"-s {text}")
    if not isinstance(table, dict):
        raise VqtoolError(f"`{key[-1]}` cannot be set there", where=f"-s {text}")
    table[key[-1]] = value
