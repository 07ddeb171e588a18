"""Signatures as strict models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_doc import Doc
from annotated_types import Ge, Gt, Interval, MinLen, MultipleOf

from vqtool.errors import VqtoolError
from vqtool.recipe.options import Options, options_of, shown, toml_value
from vqtool.recipe.spec import TrainOptions
from vqtool.recipe.type_text import type_text


class Part:
    """A part with options of every type."""

    def __init__(
        self,
        wiring: int,
        *,
        need: Annotated[int, Gt(1), Doc("must be given")],
        share: Annotated[float, Interval(gt=0, lt=1), Doc("a share")] = 0.5,
        way: Annotated[Literal["soft", "hard"], Doc("how")] = "soft",
        band: Annotated[Annotated[int, Ge(1)] | Literal["all"], Doc("which")] = 1,
        limit: Annotated[float | None, Gt(0), Doc("at most")] = None,
        sizes: Annotated[tuple[int, ...], MinLen(1), Doc("sizes")] = (1, 2),
        path: Annotated[Path, Doc("a file")] = Path("here.npy"),
        from_: Annotated[float, Doc("a Python keyword")] = 0.0,
        on: Annotated[bool, Doc("whether")] = False,
        name: Annotated[str | None, Doc("a name")] = None,
    ) -> None: ...


OPTIONS = options_of(Part)


def problems(table: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str, str | None]]:
    _, found = OPTIONS.check({"need": 2} | table, 'part "p"', page="vqtool plugins part p")
    return [(p.path, p.message, p.hint) for p in found]


def test_defaults_are_filled_in_and_values_settled() -> None:
    values, found = OPTIONS.check({"need": 3, "sizes": [4], "from": 1}, "part", folder=Path("/base"))
    assert not found
    assert values == {
        "need": 3, "share": 0.5, "way": "soft", "band": 1, "limit": None, "sizes": (4,), "path": Path("/base/here.npy"),
        "from": 1.0, "on": False, "name": None,
    }  # fmt: skip
    assert isinstance(values["from"], float)


@pytest.mark.parametrize(("given", "settled"), [("a/b", "/base/a/b"), ("/abs", "/abs")])
def test_paths_are_relative_to_the_recipe_s_folder(given: str, settled: str) -> None:
    values, _ = OPTIONS.check({"need": 2, "path": given}, "part", folder=Path("/base"))
    assert values["path"] == Path(settled)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of")
    values, _ = OPTIONS.check({"need": 2, "path": "~/x"}, "part", folder=Path("/base"))
    assert values["path"] == Path("/home/of/x")


def test_none_switches_an_option_off() -> None:
    values, _ = OPTIONS.check({"need": 2, "limit": "none", "name": "none"}, "part")
    assert values["limit"] is None
    assert values["name"] == "none"  # a string option may be called so


@pytest.mark.parametrize(
    ("table", "path", "message", "hint"),
    [
        ({"shar": 1}, ("shar",), 'part "p" has no option `shar`', "did you mean `share`?"),
        ({"zzz": 1}, ("zzz",), 'part "p" has no option `zzz`', "vqtool plugins part p"),
        ({"wiring": 1}, ("wiring",), 'part "p" has no option `wiring`', "vqtool plugins part p"),
        ({"from_": 1.0}, ("from_",), 'part "p" has no option `from_`', "did you mean `from`?"),
        ({"share": 1.5}, ("share",), 'part "p": `share` should be less than 1', "got 1.5"),
        ({"share": "0.5"}, ("share",), 'part "p": `share` should be a number', 'got "0.5": leave the quotes out'),
        ({"share": float("nan")}, ("share",), 'part "p": `share` should be finite', "got NaN"),
        ({"share": float("inf")}, ("share",), 'part "p": `share` should be finite', "got Infinity"),
        ({"need": 2.0}, ("need",), 'part "p": `need` should be a whole number', "got 2.0"),
        ({"need": True}, ("need",), 'part "p": `need` should be a whole number', "got true"),
        ({"on": 1}, ("on",), 'part "p": `on` should be true or false', "got 1"),
        ({"way": "sotf"}, ("way",), 'part "p": `way` should be "soft" or "hard"', "did you mean `soft`?"),
        ({"band": 0}, ("band",), 'part "p": `band` should be greater than or equal to 1 or "all"', "got 0"),
        ({"sizes": 3}, ("sizes",), 'part "p": `sizes` should be a list', "got 3"),
        ({"sizes": []}, ("sizes",), 'part "p": `sizes` should hold at least 1 values, not 0', "got []"),
        ({"sizes": [1, "a"]}, ("sizes", 1), 'part "p": `sizes[1]` should be a whole number', 'got "a"'),
        ({"path": 3}, ("path",), 'part "p": `path` should be a string', "got 3"),
        ({"limit": -1.0}, ("limit",), 'part "p": `limit` should be greater than 0', "got -1.0"),
    ],
)
def test_messages_for_wrong_values(table: dict[str, Any], path: tuple[str | int, ...], message: str, hint: str) -> None:
    assert problems(table) == [(path, message, hint)]


def test_all_problems_come_at_once() -> None:
    _, found = OPTIONS.check({"share": 2.0, "way": 1, "nothing": 0}, "part")
    assert {p.path for p in found} == {(), ("share",), ("way",), ("nothing",)}
    assert next(p for p in found if p.path == ()).message == "part needs the option `need`"
    assert next(p for p in found if p.path == ()).hint == "must be given"


def test_dates_are_refused_in_words() -> None:
    import tomllib

    table = tomllib.loads("need = 2\nname = 2024-01-01\nsizes = [1, 07:32:00]")
    found = problems(table)
    assert [(path, message) for path, message, _ in found if "date" in message] == [
        (("name",), 'part "p": `name` is a date'),
        (("sizes", 1), 'part "p": `sizes[1]` is a date'),
    ]


def test_documentation_comes_from_the_signature() -> None:
    result = {option.name: option for option in OPTIONS.documented()}
    assert list(result) == ["need", "share", "way", "band", "limit", "sizes", "path", "from", "on", "name"]
    assert result["need"].required
    assert (result["share"].type, result["share"].default, result["share"].doc) == ("float > 0, < 1", 0.5, "a share")
    assert result["band"].type == 'int >= 1 or "all"'


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (tuple[int, ...], "list of int"),
        (tuple[float, str], "list of 2: float, string"),
        (list[str] | None, 'list of string or "none"'),
        (Annotated[int, MultipleOf(2)], "int a multiple of 2"),
        (dict[str, float], "table of float"),
        (Annotated[float, Gt(7.0)], "float > 7"),
        (Annotated[float, Gt(0.5)], "float > 0.5"),
        (Annotated[tuple[Path, ...], MinLen(2)], "list of path at least 2"),
    ],
)
def test_types_in_words(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text


def test_json_schema_is_draft_7() -> None:
    schema = OPTIONS.json_schema()
    assert schema["required"] == ["need"]
    assert schema["properties"]["share"] == {
        "default": 0.5, "description": "a share", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "type": "number"
    }  # fmt: skip
    assert {"const": "none"} in schema["properties"]["limit"]["anyOf"]
    assert Options(TrainOptions).json_schema()["properties"]["betas"]["items"][1]["exclusiveMaximum"] == 1
    assert "prefixItems" not in str(Options(TrainOptions).json_schema())


def test_counts_have_a_limit_unless_their_type_says_another() -> None:
    """A count is most often of what takes memory: `levels = 10**9` made a tuple of 8 GB before anything else."""

    class Counting:
        def __init__(
            self,
            *,
            levels: Annotated[int, Ge(1)] = 1,
            sizes: tuple[int, ...] = (),
            rate: float = 1.0,
            seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0,
        ) -> None: ...

    options = options_of(Counting)
    assert options.check({"levels": 2**24, "rate": 10**9, "seed": 2**62}, "it")[1] == []
    for name, value in (("levels", 2**24 + 1), ("sizes", [1, 10**9])):
        _, (problem,) = options.check({name: value}, "it")
        assert problem.message == f"it: `{name}` should be at most 16,777,216"


def test_components_that_break_the_contract_are_named() -> None:
    class Keywords:
        def __init__(self, **options: int) -> None: ...

    class Untyped:
        def __init__(self, *, option=1) -> None: ...  # type: ignore[no-untyped-def]

    class Unknown:
        def __init__(self, *, option: NoSuchType = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    class Without:
        pass

    for cls, message in ((Keywords, "hides its options"), (Untyped, "has no type"), (Unknown, "NoSuchType")):
        with pytest.raises(VqtoolError, match=message) as caught:
            options_of(cls)
        assert cls.__name__ in caught.value.message
    assert options_of(Without).names == []


def test_ways_of_writing() -> None:
    assert shown(("losses", "mse", 1)) == "losses.mse[1]"
    assert toml_value({"a": [True, None, "x"]}) == '{ a = [true, "none", "x"] }'
    assert len(toml_value("y" * 100)) == 60
