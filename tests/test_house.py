"""The rules of the house: who imports whom, no field in the engine, every option documented, every file introduced."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from vqtool.catalog import catalog
from vqtool.catalog.component import first_line
from vqtool.recipe import options_of

ROOT = Path(__file__).parents[1]
ENGINE = sorted((ROOT / "vqtool").rglob("*.py"))
USE_CASES = sorted(p for folder in (ROOT / "plugins").glob("vqtool_*") for p in folder.rglob("*.py"))
TESTS = sorted(p for p in (ROOT / "tests").rglob("*.py") if p.stat().st_size)

# What each package of vqtool may import of vqtool; those of GROUND stand below all.
GROUND = {"errors", "suggest", "progress", "console", "files", "forms", "untrusted", "tables", ""}
MAY = {
    "errors": set(),
    "suggest": set(),
    "files": {"errors"},
    "forms": {"errors", "untrusted"},
    "tables": {"console"},
    "untrusted": {"errors"},
    "progress": set(),
    "console": {"errors", "progress"},
    "api": {"errors"},
    "quantizers": {"errors", "api"},
    "layers": {"errors", "api"},
    "sequence": {"errors", "api", "quantizers", "layers"},
    "parts": {"errors", "files", "untrusted", "api", "quantizers", "layers", "sequence"},
    "catalog": {"api"} | GROUND,
    "recipe": {"api", "catalog"} | GROUND,
    "model": {"api", "quantizers", "layers", "sequence", "catalog", "recipe"} | GROUND,
    "foreign": {"api", "quantizers", "catalog", "recipe", "model"} | GROUND,
    "diagnosis": {"api", "catalog", "recipe", "model", "foreign"} | GROUND,
    "analysis": {"errors", "files", "api", "diagnosis"},
    "training": {"api", "quantizers", "layers", "sequence", "catalog", "recipe", "model", "diagnosis"} | GROUND,
    "conformance": {"api", "quantizers", "layers", "sequence", "catalog", "recipe", "model"} | GROUND,
    "bench": {"api", "quantizers", "layers", "sequence", "catalog", "recipe", "model", "training"} | GROUND,
    "commands": {
        "api",
        "quantizers",
        "layers",
        "sequence",
        "catalog",
        "recipe",
        "model",
        "training",
        "conformance",
        "bench",
        "diagnosis",
        "analysis",
        "foreign",
    }
    | GROUND,
    "lightning": {"diagnosis"} | GROUND,
    "transformers": {"diagnosis"} | GROUND,
    "library": {"api", "catalog", "diagnosis", "conformance", "model", "foreign", "training"} | GROUND,
    "command": {"commands", "catalog", "examples", "shared_options"} | GROUND,
    "completion": {"catalog", "recipe", "bench"},
    "examples": set(),
    "shared_options": {"completion", "files"},
    "cli": {"command", "completion", "shared_options"} | GROUND,
    "__main__": {"cli"},
    "": GROUND | {"quantizers", "library", "foreign"},
}
USE_CASE_MAY = {
    "vqtool.api", "vqtool.quantizers", "vqtool.layers", "vqtool.sequence", "vqtool.analysis",
    "vqtool.command", "vqtool.commands", "vqtool.shared_options",
    "vqtool.catalog", "vqtool.diagnosis", "vqtool.errors", "vqtool.files", "vqtool.progress", "vqtool.untrusted",
}  # fmt: skip
FIELD_WORDS = re.compile(  # words of a field of use, which the engine must not hold
    r"""
    voltage | impedance | \bvolts?\b | electric | household | tariff
    | seism | earthquake | epicent | \bstations?\b
    | speech | utterance | phonem | \bspeakers?\b | loudness | microphone
    | radio | transmi(?!ts?\b) | antenna | receiver | constellation | \bfading\b | rayleigh | awgn | \bbsc\b
    | bit.?channel | \bsymbols?\b | \bqam | \bllrs?\b | \bber\b | \btx_power | es/n0 | (?-i:\bSNR\b)
    | channel\.snr | \.\d+db\b
    | mnist
    """,
    re.IGNORECASE | re.VERBOSE,
)
FIELD_LIBRARIES = {
    "torch", "numpy", "sklearn", "scipy", "h5py", "soundfile", "annotated_doc", "annotated_types", "pandas", "pyarrow",
    "charset_normalizer", "matplotlib", "PIL", "typer",
    "obspy", "wandb", "pesq", "pystoi", "statsforecast",
}  # fmt: skip


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too; `from a import b` as `a.b` where that is a file."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES or node.module == "vqtool" else str(node.module)


def module_of(path: Path, root: Path) -> str:
    """The name that a file is imported by."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path, ROOT): path for path in ENGINE} | {module_of(p, ROOT / "plugins"): p for p in USE_CASES}


def home(path: Path) -> str:
    """The package of vqtool that a file belongs to."""
    first = path.relative_to(ROOT / "vqtool").parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def none(offenders: Iterable[str]) -> None:
    """Fail with every offender on a line of its own."""
    found = list(offenders)
    assert not found, "\n".join(["", *found])


def test_the_engine_knows_no_field() -> None:
    found = {path: FIELD_WORDS.search(path.read_text(encoding="utf-8")) for path in ENGINE}
    none(f"{name_of(path)} names `{match[0]}`" for path, match in found.items() if match)


FIELD_LINES = {
    "from vqtool_semcom.qam import QAM16": "qam",
    "the LLRs of a bit": "LLRs",
    "class BitChannel(Channel):": "BitChannel",
    "errors at 12 dB of SNR": "SNR",
    'hint="--sweep channel.snr_db=0:18:3"': "channel.snr",
    "soft symbols": "symbols",
    "`accuracy.hard.12db`": ".12db",
    "what was transmitted": "transmi",
    "enough groups (stations, people)": "stations",
    "a seismogram": "seism",
    "utterances of one speaker": "utterance",
    '"tx_power": 1.0': "tx_power",
    'figures["ber"]': "ber",
}


@pytest.mark.parametrize("line", FIELD_LINES)
def test_a_word_of_a_field_is_seen(line: str) -> None:
    found = FIELD_WORDS.search(line)
    assert found is not None
    assert found[0] == FIELD_LINES[line]


@pytest.mark.parametrize(
    "line",
    ["codes.snr_db", "model.transmit(x, snr_db=6)", "a symbolic link", "a stationary process", "the number of codes"],
)
def test_general_words_are_not_of_a_field(line: str) -> None:
    assert FIELD_WORDS.search(line) is None


def test_imports_run_one_way() -> None:
    def offenders() -> Iterator[str]:
        for path in ENGINE:
            own = home(path)
            for module in imports(path):
                top, _, rest = module.partition(".")
                target = rest.split(".")[0]
                if top == "vqtool" and rest and f"vqtool.{target}" in MODULES and target != own:
                    if target not in MAY[own]:
                        yield f"{name_of(path)} imports {module}"
                elif top == "vqtool" and rest and target != own and "" not in MAY[own]:
                    yield f"{name_of(path)} imports {module}"
                elif top.startswith("vqtool_"):
                    yield f"{name_of(path)} imports a plugin: {module}"
                if own == "parts" and path.name != "__init__.py" and module.startswith("vqtool.parts"):
                    yield f"{name_of(path)} imports another part: {module}"

    none(offenders())


def test_no_files_import_each_other_in_a_circle() -> None:
    wanted = {name: set(imports(path)) & set(MODULES) - {name} for name, path in MODULES.items()}
    none(" -> ".join(circle) for circle in circles(wanted))


def circles(wanted: Mapping[str, set[str]]) -> list[list[str]]:
    """A circle for each group of modules that import each other."""
    found: list[list[str]] = []
    left = in_circles(wanted)
    while left:
        walk = [min(left)]
        while (following := min(left[walk[-1]] & left.keys())) not in walk:
            walk.append(following)
        circle = walk[walk.index(following) :]
        found.append([*circle, following])
        left = in_circles({name: modules for name, modules in left.items() if name not in circle})
    return found


def in_circles(wanted: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """What remains when each module that needs none of the rest is taken out, again and again."""
    left = dict(wanted)
    while ready := [name for name, modules in left.items() if not modules & left.keys()]:
        for name in ready:
            del left[name]
    return left


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}, "e": {"a"}}) == [["b", "c", "d", "b"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c"}}) == [["a", "b", "a"], ["c", "d", "c"]]


def test_use_cases_lean_on_the_contracts_alone() -> None:
    def fine(path: Path, module: str) -> bool:
        top = module.split(".")[0]
        if top == "vqtool":
            return ".".join(module.split(".")[:2]) in USE_CASE_MAY
        package = path.relative_to(ROOT / "plugins").parts[0]
        lent = package == "vqtool_semcom" and top == "vqtool_images"  # it sends the pictures that these files hold
        return lent or top == package or top in FIELD_LIBRARIES or top in sys.stdlib_module_names

    none(f"{name_of(path)} imports {m}" for path in USE_CASES for m in imports(path) if not fine(path, m))


def test_every_file_opens_with_a_line_that_says_what_it_is_for() -> None:
    lines = {path: first_line(path.read_text(encoding="utf-8")) for path in ENGINE + USE_CASES + TESTS}
    none(f"{name_of(path)}: {line}" for path, line in lines.items() if len(line) <= 10 or line[-1] not in ".:?!")


def test_files_and_functions_stay_short() -> None:
    def offenders() -> Iterator[str]:
        for path in ENGINE + USE_CASES:
            lines = path.read_text(encoding="utf-8").count("\n")
            if lines >= 400:
                yield f"{name_of(path)} has {lines} lines"
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > 70:
                        yield f"{name_of(path)}: {node.name} has {length} lines"

    none(offenders())


def test_no_committed_file_names_a_machine_s_folder() -> None:
    folder = re.compile(r"(?<![\w.])/(work|tmp|home|root)/")
    none(name_of(path) for path in ENGINE + USE_CASES if folder.search(path.read_text(encoding="utf-8")))


def test_every_silenced_type_error_has_its_reason_beside_it() -> None:
    def offenders() -> Iterator[str]:
        for path in ENGINE + USE_CASES:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if "type: ignore" in line and not re.search(r"# type: ignore\[[a-z, -]+\]  # \w", line):
                    yield f"{name_of(path)}:{number}"

    none(offenders())


def test_types_are_checked_strictly_in_every_room() -> None:
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert mypy["strict"]
    assert mypy["files"] == ["vqtool", "plugins"]
    assert "overrides" not in mypy


def test_every_component_says_what_it_is_and_what_its_options_mean() -> None:
    def offenders() -> Iterator[str]:
        for component in catalog().components:
            name = f"{component.role} `{component.name}`"
            cls = catalog().load(component.role, component.name)
            if not component.summary or not cls.__doc__:
                yield f"{name} has no docstring"
            for option in options_of(cls).documented():
                if not option.doc or option.name != option.name.lower():
                    yield f"{name}: option `{option.name}` has no Doc, or is not lower-case"

    none(offenders())


def test_no_module_is_called_by_a_name_that_says_nothing() -> None:
    empty = {"utils", "helpers", "common", "misc", "base", "manager", "factory"}

    def offenders() -> Iterator[str]:
        for path in ENGINE + USE_CASES:
            if path.stem in empty or path.stem.startswith("base_"):
                yield name_of(path)
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Factory|Helper|Util)", node.name):
                    yield f"{name_of(path)}: {node.name}"

    none(offenders())
