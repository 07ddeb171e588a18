"""The JSON Schema (draft 7) of recipes, for completion and checks in editors; it covers what is installed."""

from __future__ import annotations

from typing import Any

from vqtool.catalog import catalog
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.recipe.checking import EVALUATE, TOP, TRAIN, part_roles
from vqtool.recipe.options import Options, options_of
from vqtool.recipe.spec import diagnose_options

Schema = dict[str, Any]


def recipe_schema() -> Schema:
    """The schema of a whole recipe: a branch per kind of every role."""
    parts = {role: {"$ref": f"#/definitions/{role}"} for role in part_roles()}
    definitions = {
        role: component(role) for role in [*part_roles(), "data", "schedule", "estimator", "metric", "baseline"]
    }
    properties: Schema = {
        **TOP.json_schema()["properties"],
        "data": {"$ref": "#/definitions/data"},
        "train": own_table(TRAIN),
        "evaluate": evaluate(),
        "diagnose": own_table(Options(diagnose_options())),
        "stage": {"type": "array", "minItems": 1, "items": stage()},
        **parts,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A recipe of vqtool",
        "type": "object",
        "required": ["data", "stage"],
        "properties": properties,
        "patternProperties": {f"^[a-z0-9_]+_{role}$": ref for role, ref in parts.items()},
        "additionalProperties": False,
        "definitions": definitions,
    }


def own_table(options: Options) -> Schema:
    """One of the recipe's own tables."""
    return {"type": "object", "additionalProperties": False, "properties": options.json_schema()["properties"]}


def component(role: str) -> Schema:
    """A table with a `kind`: which options it takes depends on the kind."""
    kinds = catalog().names(role)
    about = [catalog().find(role, kind).summary for kind in kinds]
    branches = []
    for kind in kinds:
        options = options_schema(role, kind)
        if options is not None:
            options["properties"] = {"kind": {"const": kind}, **options["properties"]}
            branches.append({"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": options})
    whole: Schema = {"type": "object", "required": ["kind"], "properties": {"kind": choice(kinds, about)}}
    return whole | ({"allOf": branches} if branches else {})


def options_schema(role: str, kind: str) -> Schema | None:
    """What a kind's table may hold; None, with a warning, where its class cannot be loaded."""
    try:
        options = options_of(catalog().load(role, kind)).json_schema()
    except VqtoolError as error:
        out.warn(f"the schema leaves out the options of {role} `{kind}`: {error.message}")
        return None
    required = {"required": options["required"]} if options["required"] else {}
    return {"properties": options["properties"], "additionalProperties": False, **required}


def choice(names: list[str], about: list[str]) -> Schema:
    """One of some names; editors that know `enumDescriptions` show what each is."""
    return {"type": "string", "enum": names, "enumDescriptions": about}


def stage() -> Schema:
    """A `[[stage]]`."""
    tasks = catalog().names("task")
    about = [catalog().find("task", name).summary for name in tasks]
    knob = {"type": ["number", "boolean", "string"]}
    branches = []
    for name in tasks:
        options = options_schema("task", name)
        if options is not None:
            then = {"properties": {"options": {"type": "object", **options}}}
            branches.append({"if": {"properties": {"task": {"const": name}}, "required": ["task"]}, "then": then})
    return {
        "type": "object",
        "required": ["task", "losses"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "description": "names its files and `-s stage.NAME.KEY`; by default the task"},
            "task": choice(tasks, about),
            "options": {"type": "object", "description": "of the task"},
            "losses": losses(),
            "set": {"type": "object", "additionalProperties": knob, "description": "knobs, set once for the stage"},
            "schedule": {"type": "object", "additionalProperties": {"$ref": "#/definitions/schedule"}},
            **TRAIN.json_schema()["properties"],
        },
        "allOf": branches,
    }


def losses() -> Schema:
    """The losses of a stage: a weight each, or a table with the weight and the loss's options."""
    weight: Schema = {"type": "number", "description": "its weight in the total"}
    named: Schema = {}
    for name in catalog().names("loss"):
        summary = catalog().find("loss", name).summary
        options = options_schema("loss", name) or {"properties": {}}
        table = {"type": "object", **options, "properties": {"weight": weight, **options["properties"]}}
        named[name] = {"description": summary, "anyOf": [{"type": "number"}, table]}
    return {
        "type": "object",
        "minProperties": 1,
        "properties": {**named, **{term: weight for term in terms() if term not in named}},
        "additionalProperties": False,
    }


def terms() -> list[str]:
    """Every term that some quantizer gives."""
    found: set[str] = set()
    for kind in catalog().names("quantizer"):
        try:
            found |= catalog().load("quantizer", kind).terms
        except VqtoolError:
            continue  # warned of with its options
    return sorted(found)


def evaluate() -> Schema:
    """`[evaluate]`, with the names that are there."""
    properties: Schema = EVALUATE.json_schema()["properties"]
    for key, role in (("metrics", "metric"), ("baselines", "baseline")):
        name = {"type": "string", "enum": catalog().names(role)}
        properties[key] |= {"type": "array", "items": {"anyOf": [name, {"$ref": f"#/definitions/{role}"}]}}
        properties[key].pop("anyOf", None)
    return {"type": "object", "additionalProperties": False, "properties": properties}
