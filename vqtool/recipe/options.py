"""Options: a component's keyword-only parameters as a strict model, the one source of checks, docs and JSON Schema."""

from __future__ import annotations

import datetime
import functools
import inspect
import json
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_doc import Doc
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from vqtool.catalog import nested_options
from vqtool.errors import VqtoolError
from vqtool.recipe.portable import is_elsewhere
from vqtool.recipe.type_text import type_text
from vqtool.suggest import did_you_mean, listed
from vqtool.untrusted import toml_table

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)
NONE = "none"  # TOML has no null: an option that may be None is switched off with "none"

LARGEST_COUNT = 2**24  # of whole numbers whose type has no upper limit: most are counts of what takes memory


@dataclass(frozen=True, slots=True)
class Option:
    """One option as people read of it."""

    name: str
    type: str
    doc: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a table, and at which key below it."""

    path: tuple[str | int, ...]
    message: str
    hint: str | None = None


class Options:
    """The options of one component (`counts`: its whole numbers have a limit), or of one of the recipe's own tables."""

    def __init__(self, model: type[BaseModel], *, counts: bool = False) -> None:
        self.model = model
        self.fields: dict[str, FieldInfo] = {f.alias or name: f for name, f in model.model_fields.items()}
        self._attributes = {f.alias or name: name for name, f in model.model_fields.items()}
        self.former = {mark.old: name for name, field in self.fields.items()
                       for mark in field.metadata if type(mark).__name__ == "Renamed"}  # fmt: skip
        self.nested = {name: mark for name, field in self.fields.items() if (mark := nested_mark(field)) is not None}
        self._counts = {name for name, field in self.fields.items() if counts and not limited(field)}

    @property
    def names(self) -> list[str]:
        """The options' names as a recipe has them."""
        return list(self.fields)

    def current(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """The table with options under the names of today; a former name beside its successor stays as it is."""
        return {key if self.former.get(key, key) in table else self.former[key]: value for key, value in table.items()}

    def documented(self) -> list[Option]:
        """Every option with its type, default and meaning."""
        return [
            Option(
                name,
                nested_text(field) or type_text(field.annotation, field.metadata),
                field.description or "",
                None if field.is_required() else field.get_default(call_default_factory=True),
                field.is_required(),
            )
            for name, field in self.fields.items()
        ]

    def check(
        self,
        table: Mapping[str, Any],
        what: str,
        *,
        folder: Path | None = None,
        typed: Collection[str] = (),
        page: str = "",
    ) -> tuple[dict[str, Any], list[Problem]]:
        """The checked options with defaults filled in, and every problem; `what` names the owner in messages.

        Paths are resolved against `folder`, of the options `typed` against the working folder; lists arrive as tuples.
        `page` is the command that lists the options.
        """
        dated = [Problem(path, f"{what}: `{shown(path)}` is a date", "write it as a string, in quotes")
                 for path in dates_in(table)]  # fmt: skip
        plain = {key: self._or_none(key, self._as_text(value) if key in typed and self._takes_text(key) else value)
                 for key, value in table.items()}  # fmt: skip
        try:
            checked = self.model.model_validate_json(json.dumps(plain, default=str))
        except ValidationError as error:
            problems = self._problems(error, plain, what, page)
            known = {p.path for p in dated}
            return {}, dated + [p for p in problems if p.path not in known]
        values = {name: getattr(checked, at) for name, at in self._attributes.items()}
        problems = dated + [self._too_large(name, value, what) for name, value in values.items()
                            if name in self._counts and largest(value) > LARGEST_COUNT]  # fmt: skip
        if problems:
            return {}, problems
        return {name: settled(value, Path.cwd() if name in typed else folder) for name, value in values.items()}, []

    def json_schema(self) -> dict[str, Any]:
        """Draft 7 properties of the options: `{"properties": {...}, "required": [...]}`."""
        whole = self.model.model_json_schema(by_alias=True)
        plain = _draft7(whole, whole.get("$defs", {}))
        for name, mark in self.nested.items():
            one = {"anyOf": [{"type": "string"}, {"$ref": f"#/definitions/{mark.role}"}]}
            several = [{"type": "array", "items": one}] if mark.many else []
            description = self.fields[name].description or ""
            plain["properties"][name] = {"anyOf": [*one["anyOf"], *several], "description": description}
        return {"properties": plain.get("properties", {}), "required": plain.get("required", [])}

    def _too_large(self, name: str, value: Any, what: str) -> Problem:
        return Problem((name,), f"{what}: `{name}` should be at most {LARGEST_COUNT:,}", f"got {toml_value(value)}")

    def _takes_text(self, key: str) -> bool:
        return key in self.fields and self.fields[key].annotation is str

    @staticmethod
    def _as_text(value: Any) -> Any:
        """A whole number, of the command line, as it was typed: `-s data.text=2` has no place for quotes."""
        return str(value) if type(value) is int else value

    def _or_none(self, key: str, value: Any) -> Any:
        """The string "none" as None, where the option may be None and takes no other string."""
        if value != NONE or key not in self.fields:
            return value
        inner = typing.get_args(self.fields[key].annotation)
        return None if types.NoneType in inner and str not in inner else value

    def _problems(self, error: ValidationError, table: Mapping[str, Any], what: str, page: str) -> list[Problem]:
        grouped: dict[tuple[str | int, ...], list[Any]] = {}
        for one in error.errors(include_url=False):
            grouped.setdefault(_resolved(one["loc"], table), []).append(one)
        return [self._problem(path, many, table, what, page) for path, many in grouped.items()]

    def _problem(
        self, path: tuple[str | int, ...], many: list[Any], table: Mapping[str, Any], what: str, page: str
    ) -> Problem:
        name, first = shown(path), many[0]
        if first["type"] == "extra_forbidden" and len(path) == 1:
            otherwise = f"its options: {listed(self.names)}" if len(self.names) < 7 else page
            otherwise = "it has no options" if not self.names else otherwise
            return Problem(
                path, f"{what} has no option `{name}`", did_you_mean(str(path[0]), self.names, otherwise=otherwise)
            )
        if first["type"] == "missing":
            about = self.fields[str(path[0])].description if path and path[0] in self.fields else None
            return Problem(path[:-1], f"{what} needs the option `{name}`", about)
        wrong = " or ".join(dict.fromkeys(_in_words(one).removeprefix("should be ") for one in many))
        verb = "should be " if _in_words(first).startswith("should be ") else ""
        return Problem(path, f"{what}: `{name}` {verb}{wrong}", _got(many, _at(table, path)))


_KNOWN: dict[type, Options] = {}


def options_of(cls: type) -> Options:
    """The options of a component's class: the keyword-only parameters of its constructor.

    Raises:
        VqtoolError: the constructor breaks the contract: an option without a type, `**kwargs`, names not resolvable.
    """
    if cls not in _KNOWN:
        _KNOWN[cls] = Options(_model(cls), counts=True)
    return _KNOWN[cls]


def _model(cls: type) -> type[BaseModel]:
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    if owner.__module__.split(".")[0] in ("builtins", "torch"):  # no constructor of its own, so no options
        return create_model(cls.__name__, __config__=STRICT)
    constructor = vars(owner)["__init__"]
    try:
        hints = typing.get_type_hints(constructor, include_extras=True)
    except NameError as error:
        broken = f"`{cls.__qualname__}` is broken: its options' types cannot be read: {error}"
        raise VqtoolError(broken, exit_code=1) from error
    fields: dict[str, Any] = {}
    nested = nested_options(cls)
    for name, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            raise VqtoolError(f"`{cls.__qualname__}` is broken: `**{name}` hides its options", exit_code=1)
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if name not in hints:
            raise VqtoolError(f"`{cls.__qualname__}` is broken: its option `{name}` has no type", exit_code=1)
        default = ... if parameter.default is parameter.empty else parameter.default
        docs = [d.documentation for d in typing.get_args(hints[name])[1:] if isinstance(d, Doc)]
        hint, mark = hints[name], nested.get(name)
        if mark is not None:  # a table with a `kind`, whose options the component of that kind checks
            one = dict[str, Any] | str
            hint, default = Annotated[one | list[one] if mark.many else one, mark], as_table(default)
        about = Field(default, alias=name.removesuffix("_"), description=docs[-1] if docs else None)
        fields[f"option_{len(fields)}"] = (hint, about)  # any name is allowed: `copy` would hide pydantic's
    return create_model(cls.__name__, __config__=STRICT, **fields)


class Chosen(dict[str, Any]):
    """A checked component that is an option of another: its `kind` and options, and the class that this names."""

    def __init__(self, kind: str, options: Mapping[str, Any], cls: type) -> None:
        super().__init__(kind=kind, **options)
        self.cls = cls


def as_table(default: Any) -> Any:
    """A default that is a class, a `partial` of one, a kind or a list of them, as a recipe would give it."""
    if isinstance(default, list | tuple):
        return [as_table(one) for one in default]
    if isinstance(default, functools.partial):
        return {**as_table(default.func), **default.keywords}
    return {"kind": default.__module__.rsplit(".", 1)[-1].replace("_", "-")} if isinstance(default, type) else default


def nested_mark(field: FieldInfo) -> Any:
    """What marks an option as a component of a role; None for others."""
    return next((mark for mark in field.metadata if type(mark).__name__ == "Nested"), None)


def nested_text(field: FieldInfo) -> str | None:
    """The type of an option that is a component, in words."""
    mark = nested_mark(field)
    return mark and f"table of the {mark.role} with `kind`, or a kind{', or a list of these' if mark.many else ''}"


def limited(field: FieldInfo) -> bool:
    """Whether an option's type has an upper limit of its own, also inside of lists."""
    kinds: list[Any] = [field.annotation]
    marks: list[Any] = list(field.metadata)
    while kinds:
        kind = kinds.pop()
        kinds += typing.get_args(kind)
        marks.append(kind)
    return any(getattr(mark, "le", None) is not None or getattr(mark, "lt", None) is not None for mark in marks)


def largest(value: Any) -> int:
    """The largest whole number in a value, 0 where there is none."""
    if isinstance(value, list | tuple):
        return max(map(largest, value), default=0)
    return value if isinstance(value, int) else 0


def dates_in(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The places of TOML dates and times, which no option takes."""
    if isinstance(value, datetime.date | datetime.time):
        return [path]
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in dates_in(item, (*path, key))]


def settled(value: Any, folder: Path | None) -> Any:
    """A checked value as components receive it: paths absolute, lists as tuples."""
    if isinstance(value, Path):
        path = value.expanduser()
        return path if folder is None or path.is_absolute() or is_elsewhere(path) else folder / path
    if isinstance(value, list | tuple):
        return tuple(settled(item, folder) for item in value)
    if isinstance(value, dict):
        return {key: settled(item, folder) for key, item in value.items()}
    return value


def shown(path: Sequence[str | int]) -> str:
    """A path below a table as people write it: `strides[1]`, `losses.mse`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def toml_value(value: Any) -> str:
    """A value as TOML writes it, cut where it is long."""
    if isinstance(value, Mapping):
        text = "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + " }"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(toml_value, value))}]"
    elif value is None:
        text = f'"{NONE}"'
    else:
        text = json.dumps(str(value) if not isinstance(value, bool | int | float) else value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _resolved(loc: Sequence[str | int], table: Any) -> tuple[str | int, ...]:
    """The part of pydantic's location that exists in the table; it appends the members of unions."""
    path: list[str | int] = []
    for part in loc:
        inside = isinstance(table, Mapping) and part in table
        inside = inside or (isinstance(table, list) and isinstance(part, int) and part < len(table))
        if path and not inside:
            break
        path.append(part)
        table = table[part] if inside else None
    return tuple(path)


def _at(table: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        table = table[part]
    return table


_WORDS: dict[str, str] = {
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "path_type": "should be a string",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "string_type": "should be a string",
    "finite_number": "should be finite",
    "none_required": f'should be "{NONE}"',
    "dict_type": "should be a table",
    "extra_forbidden": "is not an option",
    "string_pattern_mismatch": 'should be a comparison such as "< 0.01"',  # `stop_when` alone has a pattern
}


def _in_words(one: Any) -> str:
    """What pydantic says of a value, in our words."""
    kind, context = one["type"], one.get("ctx", {})
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "literal_error":
        return "should be " + str(context["expected"]).replace("'", '"')
    if kind in ("too_short", "too_long"):
        many, bound = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return f"should hold {many} {context[bound]} values, not {context['actual_length']}"
    message = str(one["msg"]).removeprefix("Value error, ").replace("Input should", "should").replace("a valid ", "a ")
    return message[:1].lower() + message[1:]


def _got(many: list[Any], value: Any) -> str:
    """The value that was given and, where that is clear, what to write instead."""
    got = f"got {toml_value(value)}"
    kinds = {one["type"] for one in many}
    if isinstance(value, str) and kinds & {"int_type", "float_type", "bool_type"}:
        try:
            unquoted = toml_table(f"v = {value}")["v"]
        except ValueError:
            unquoted = None
        if isinstance(unquoted, int | float):
            return f"got {toml_value(value)}: leave the quotes out"
    for one in many:
        if one["type"] == "literal_error" and isinstance(value, str):
            near = did_you_mean(value, str(one["ctx"]["expected"]).split("'")[1::2])
            return near or got
    return got


def _draft7(value: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema of pydantic as draft 7: no titles, no references, fixed tuples by `items`, "none" for null."""
    if isinstance(value, list):
        return [_draft7(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _draft7(definitions[value["$ref"].rsplit("/", 1)[-1]], definitions)
    if value.get("type") == "null":
        return {"const": NONE}
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if key == "properties":
            plain[key] = {name: _draft7(one, definitions) for name, one in item.items()}
        elif key == "prefixItems":
            plain["items"] = _draft7(item, definitions)
        elif key == "default":
            plain |= {} if item is None else {key: item}
        elif key not in ("title", "$defs"):
            plain[key] = _draft7(item, definitions)
    return plain
