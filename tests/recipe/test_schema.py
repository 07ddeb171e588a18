"""The JSON Schema of recipes."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from tests.recipe.text import GOOD
from vqtool.catalog import catalog
from vqtool.recipe.schema import recipe_schema

pytestmark = pytest.mark.usefixtures("toy")


def complaints(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """What a small validator for the words that our schema uses says of a value."""
    if "$ref" in schema:
        return complaints(value, root["definitions"][schema["$ref"].rsplit("/", 1)[-1]], root, at)
    found = []
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    types = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if types and not any(
        isinstance(value, kinds[t]) and not (isinstance(value, bool) and t != "boolean") for t in types
    ):
        return [f"{at}: {value!r} is no {types}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if "anyOf" in schema and all(complaints(value, one, root, at) for one in schema["anyOf"]):
        found.append(f"{at}: fits none")
    limits = {"minimum": lambda v, b: v >= b, "exclusiveMinimum": lambda v, b: v > b,
              "maximum": lambda v, b: v <= b, "exclusiveMaximum": lambda v, b: v < b}  # fmt: skip
    found += [f"{at}: {word}" for word, fits in limits.items() if word in schema and not fits(value, schema[word])]
    for one in schema.get("allOf", []):
        if not complaints(value, one["if"], root):
            found += complaints(value, one["then"], root, at)
    if isinstance(value, dict):
        found += [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            more = schema.get("additionalProperties", True)
            matching = [s for p, s in schema.get("patternProperties", {}).items() if re.search(p, name)]
            known = [s for n, s in schema.get("properties", {}).items() if n == name] + matching
            if not known and more is False:
                found.append(f"{at}: no {name}")
            for one in known or ([more] if isinstance(more, dict) else []):
                found += complaints(item, one, root, f"{at}.{name}")
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        found += [c for i, item in enumerate(value) for c in complaints(item, schema["items"], root, f"{at}[{i}]")]
    return found


def judged(text: str) -> list[str]:
    schema = recipe_schema()
    return complaints(tomllib.loads(text), schema, schema)


def test_a_sound_recipe_fits() -> None:
    assert judged(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("strides = [4, 4]", "stride = [4, 4]"),
        ("strides = [4, 4]", "strides = [4, 0]"),
        ('kind = "toy"\nstrides', 'kind = "tpy"\nstrides'),
        ('path = "waves.npy"', ""),
        ("steps = 100", "stepps = 100"),
        ("steps = 100", "steps = 0"),
        ("commitment = 0.25", "comitment = 0.25"),
        ("from = 3", "form = 3"),
        ('task = "toy"', 'task = "ty"'),
        ("mask = 0.5", "mask = 1.5"),
        ('kind = "toy", from = 0.0', 'kind = "toy"'),
        ("[decoder]", "[decodr]"),
        ('metrics = ["toy"]', 'metrics = ["toi"]'),
        ('metrics = ["toy"]', 'metrics = [{ kind = "toy", nope = 1 }]'),
    ],
)
def test_the_schema_refuses_what_the_check_refuses(old: str, new: str) -> None:
    assert judged(GOOD.replace(old, new, 1))


def test_none_and_a_second_part_of_a_role_fit() -> None:
    assert judged(GOOD.replace("lr = 2e-3", 'clip = "none"')) == []
    assert judged(GOOD.replace('baselines = ["toy"]', 'baselines = [{ kind = "toy" }, "toy"]')) == []
    assert judged(GOOD.replace("[train]", '[other_encoder]\nkind = "toy"\n[train]')) == []
    assert judged(GOOD.replace("[train]", '[other_encoder]\nkind = "nope"\n[train]'))


def test_it_covers_everything_that_is_installed() -> None:
    schema = recipe_schema()
    assert schema["$schema"].startswith("http://json-schema.org/draft-07")
    for role in ("quantizer", "encoder", "data", "schedule"):
        table = schema["definitions"][role]
        assert table["properties"]["kind"]["enum"] == catalog().names(role)
        assert [branch["if"]["properties"]["kind"]["const"] for branch in table["allOf"]] == catalog().names(role)
    assert json.loads(json.dumps(schema)) == schema
    assert '"title"' not in json.dumps(schema["definitions"])


def test_a_component_that_cannot_be_loaded_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vqtool.errors import VqtoolError

    load = type(catalog()).load

    def lacking(self: Any, role: str, name: str) -> type:
        if (role, name) == ("loss", "toy"):
            raise VqtoolError("needs the library `h5py`")
        return load(self, role, name)

    monkeypatch.setattr(type(catalog()), "load", lacking)
    schema = recipe_schema()
    assert "toy" in schema["properties"]["stage"]["items"]["properties"]["losses"]["properties"]
    assert "leaves out the options of loss `toy`" in capsys.readouterr().err
