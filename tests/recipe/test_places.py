"""Every key of every TOML text is found where it stands."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtool.recipe.places import key_parts, nearest_spot, positions

NASTY = '''\
# [not.a.table]
title = """[also.not]
key = 1"""
"quoted key" . inner = 1   # dotted and quoted
list = [ 1, # one
  2, "]", [3, { deep = 4 }] ]
[a.b]
c = { d = 1, "e.f" = { g = "}" } , h = [] }
[a]
z = 'literal \\'
[[stage]]
name = "x"
[[stage.loss]]
kind = "one"
[[stage.loss]]
kind = "two"
[[stage]]
set = { "quantizer.temperature" = 1.5 }
schedule."quantizer.temperature" = { kind = "linear" }
when = 1979-05-27 07:32:00
text = """four quotes """"
text2 = \'\'\'a''b\'\'\'\'\'
'''


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every key and array element."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *leaves(item, (*path, key)))]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_nasty_text(newline: str) -> None:
    text = NASTY.replace("\n", newline)
    found = positions(text)
    assert set(found) == set(leaves(tomllib.loads(text)))
    at = {path: (spot.line, spot.column) for path, spot in found.items()}
    assert at["title",] == (2, 1)
    assert at["quoted key", "inner"] == (4, 16)
    assert at["list", 1] == (6, 3)
    assert at["list", 3, 1, "deep"] == (6, 17)
    assert at["a",] == (9, 2)
    assert at["a", "b"] == (7, 4)
    assert at["a", "b", "c", "e.f", "g"] == (8, 24)
    assert at["stage", 0, "loss", 1, "kind"] == (16, 1)
    assert at["stage", 1] == (17, 3)
    assert at["stage", 1, "set", "quantizer.temperature"] == (18, 9)
    assert at["stage", 1, "schedule", "quantizer.temperature", "kind"] == (19, 38)
    assert at["stage", 1, "text2"] == (22, 1)


LETTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])
NAMES = st.text(LETTERS, min_size=1, max_size=6) | st.sampled_from(
    ["b-c", "kind", "quantizer.temperature", "0", "[x]", '"']
)
SCALARS = (
    st.integers(-9, 9) | st.booleans() | st.floats(-5, 5).map(lambda f: round(f, 3)) | st.text(LETTERS, max_size=5)
)
INLINE = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
TABLES = st.dictionaries(NAMES, st.dictionaries(NAMES, INLINE, max_size=4), max_size=4)
STAGES = st.lists(st.dictionaries(NAMES, INLINE, max_size=3), max_size=3)


def quoted(value: Any) -> str:
    """A scalar or a key as TOML writes it."""
    return json.dumps(value, ensure_ascii=False)


def written(value: Any, data: st.DataObject) -> str:
    """A value as TOML, with the liberties that TOML allows."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key(name, data)} = {written(v, data)}" for name, v in value.items()) + "}"
    if isinstance(value, list):
        gap = data.draw(st.sampled_from([", ", ",\n  ", " , # [no]\n"]))
        return "[" + gap.join(written(item, data) for item in value) + "]"
    if isinstance(value, str) and data.draw(st.booleans()):
        return '"""\n' + quoted(value)[1:-1] + '"""'
    return quoted(value)


def key(name: str, data: st.DataObject) -> str:
    """A key, bare where it may be and the draw says so."""
    bare = name.isascii() and name.replace("-", "a").replace("_", "a").isalnum()
    return name if bare and data.draw(st.booleans()) else quoted(name)


@given(TABLES, STAGES, st.data())
def test_every_key_is_found_on_a_line_that_holds_it(
    tables: dict[str, Any], stages: list[Any], data: st.DataObject
) -> None:
    lines = []
    for name, table in tables.items():
        lines.append(f"[ {key(name, data)} ]" if name != "stage" else '["stage "]')
        lines += [f"{key(k, data)} = {written(v, data)}  # {{" for k, v in table.items()]
    for stage in stages:
        lines += ["", "[[ stage ]]"]
        lines += [f"{key(k, data)}={written(v, data)}" for k, v in stage.items()]
    text = "\n".join(lines) + "\n"
    value = tomllib.loads(text)
    found = positions(text)
    assert set(found) == set(leaves(value))
    for path, spot in found.items():
        line = text.split("\n")[spot.line - 1]
        pointed = line[spot.column - 1 : spot.column - 1 + spot.width]
        if isinstance(path[-1], str):
            assert path[-1] in pointed or quoted(path[-1]) == pointed
        else:
            assert pointed.strip()
            assert 0 < spot.column <= len(line)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.b", ["a", "b"]),
        (' a . "b.c" . d', ["a", "b.c", "d"]),
        ("", None),
        ("a.", None),
        ("a b", None),
        ('"open', None),
        ("ä", None),
    ],
)
def test_dotted_keys(text: str, parts: list[str] | None) -> None:
    assert key_parts(text) == parts


def test_the_nearest_place_is_that_of_the_table_around() -> None:
    found = positions("[a]\nb = 1\n")
    assert nearest_spot(found, ("a", "nothing")) == found["a",]
    assert nearest_spot(found, ("c",)) is None
