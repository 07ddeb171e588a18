"""The rules of the house: who imports whom, no field in the engine, every option documented, every file introduced."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
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
    "diagnosis": {"api", "catalog", "recipe", "model"} | GROUND,
    "analysis": {"errors", "files", "api", "diagnosis"},
    "training": {"api", "quantizers", "layers", "sequence", "catalog", "recipe", "model", "diagnosis"} | GROUND,
    "conformance": {"api", "quantizers", "layers", "sequence", "catalog", "recipe", "model"} | GROUND,
    "bench": {"api", "quantizers", "layers", "sequence", "catalog"} | GROUND,
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
    }
    | GROUND,
    "library": {"api", "catalog", "diagnosis", "conformance", "model"} | GROUND,
    "command": {"commands", "catalog", "shared_options"} | GROUND,
    "completion": {"catalog", "recipe", "bench"},
    "shared_options": set(),
    "cli": {"command", "completion", "shared_options"} | GROUND,
    "__main__": {"cli"},
    "": GROUND | {"quantizers", "library"},
}
USE_CASE_MAY = {
    "vqtool.api", "vqtool.quantizers", "vqtool.layers", "vqtool.sequence", "vqtool.analysis",
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
    "matplotlib",
    "obspy", "wandb",
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too; `from a import b` also as `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield str(node.module)
            if node.module == "vqtool":
                yield from (f"vqtool.{alias.name}" for alias in node.names)


def home(path: Path) -> str:
    """The package of vqtool that a file belongs to."""
    first = path.relative_to(ROOT / "vqtool").parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", ENGINE, ids=name_of)
def test_the_engine_knows_no_field(path: Path) -> None:
    found = FIELD_WORDS.search(path.read_text(encoding="utf-8"))
    assert found is None, f"{path} names `{found[0]}`"


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


@pytest.mark.parametrize("path", ENGINE, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    own = home(path)
    for module in imports(path):
        if module.split(".")[0] == "vqtool" and "." in module:
            target = module.split(".")[1]
            target = (
                target if (ROOT / "vqtool" / target).is_dir() or (ROOT / "vqtool" / f"{target}.py").is_file() else ""
            )
            assert target == own or target in MAY[own], f"{name_of(path)} imports {module}"
        assert not module.startswith("vqtool_"), f"{name_of(path)} imports a plugin"
    if own == "parts" and path.name != "__init__.py":
        inside = [m for m in imports(path) if m.startswith("vqtool.parts")]
        assert not inside, f"{name_of(path)} imports a part: {inside}"


@pytest.mark.parametrize("path", USE_CASES, ids=name_of)
def test_use_cases_lean_on_the_contracts_alone(path: Path) -> None:
    package = path.relative_to(ROOT / "plugins").parts[0]
    for module in imports(path):
        top = module.split(".")[0]
        if top == "vqtool":
            assert ".".join(module.split(".")[:2]) in USE_CASE_MAY, f"{name_of(path)} imports {module}"
        else:
            fine = top == package or top in FIELD_LIBRARIES or top in sys.stdlib_module_names
            assert fine, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", ENGINE + USE_CASES + TESTS, ids=name_of)
def test_every_file_opens_with_a_line_that_says_what_it_is_for(path: Path) -> None:
    line = first_line(path.read_text(encoding="utf-8"))
    assert len(line) > 10, f"{name_of(path)} has no docstring"
    assert line[-1] in ".:?!", f"{name_of(path)}: its first line is no sentence: {line}"


@pytest.mark.parametrize("path", ENGINE + USE_CASES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 400, f"{name_of(path)} is too long"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{name_of(path)}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", ENGINE + USE_CASES, ids=name_of)
def test_no_committed_file_names_a_machine_s_folder(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(work|tmp|home|root)/", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("component", catalog().components, ids=lambda c: f"{c.role}-{c.name}")
def test_every_component_says_what_it_is_and_what_its_options_mean(component: object) -> None:
    role, name = component.role, component.name  # type: ignore[attr-defined]
    assert component.summary, "no summary"  # type: ignore[attr-defined]
    cls = catalog().load(role, name)
    assert cls.__doc__, f"{role} `{name}` has no docstring"
    for option in options_of(cls).documented():
        assert option.doc, f"{role} `{name}`: option `{option.name}` has no Doc"
        assert option.name == option.name.lower()


def test_no_module_is_called_by_a_name_that_says_nothing() -> None:
    empty = {"utils", "helpers", "common", "misc", "base", "manager", "factory"}
    for path in ENGINE + USE_CASES:
        assert path.stem not in empty
        assert not path.stem.startswith("base_")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert not re.search(r"(Manager|Factory|Helper|Util)", node.name), f"{name_of(path)}: {node.name}"
