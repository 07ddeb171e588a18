"""The pages made from the code are current, and everything that has a name is on one of them."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from vqtool.catalog import catalog
from vqtool.catalog.hooks import Hooks
from vqtool.cli import app
from vqtool.conformance import PRIOR_LAWS, QUANTIZER_LAWS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_make", DOCS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["benchmarks.md", "cli.md", "parts.md", "laws.md", "hooks.md", "findings.md"])
def test_a_page_is_current(make: ModuleType, page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == make.PAGES[page]().rstrip("\n") + "\n", "python docs/make.py"


def test_every_page_that_is_made_is_tested(make: ModuleType) -> None:
    assert set(make.PAGES) == {"benchmarks.md", "cli.md", "parts.md", "laws.md", "hooks.md", "findings.md"}


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def test_every_command_is_there() -> None:
    for command in app.registered_commands:
        assert f"## vqtool {command.name}\n" in text("cli.md")


def test_every_component_of_ours_and_every_option_has_words() -> None:
    page = text("parts.md")
    for component in catalog().components:
        if catalog().provider(component).startswith("vqtool "):
            assert f"### {component.role} `{component.name}`\n" in page
    assert not re.search(r"^\* .*\):$", page, re.M), "an option without a meaning"


def test_every_role_has_words(make: ModuleType) -> None:
    assert set(catalog().roles) == set(make.ROLES)


def test_every_law_and_hook_is_there() -> None:
    for law in (*QUANTIZER_LAWS, *PRIOR_LAWS):
        assert f"## `{law.id}`\n" in text("laws.md")
    for hook in Hooks().names():
        assert f"## `{hook}(" in text("hooks.md")


def made(function: ast.expr) -> str | None:
    """What is called: `Finding`, or the method of a report that makes one."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def test_every_finding_is_there() -> None:
    """Every id is a plain string where the finding is made, so that this test sees it."""
    found = set()
    for path in {*(DOCS.parent / "vqtool" / "diagnosis").glob("*.py")} - {
        DOCS.parent / "vqtool" / "diagnosis" / "report.py"
    }:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and made(call.func) in ("Finding", "judge"):
                name = call.args[0]
                assert isinstance(name, ast.Constant), f"{path}:{call.lineno}: an id that no test can read"
                found.add(str(name.value))
    assert {"collapse", "dead-codes", "nan"} <= found
    for finding in found:
        assert f"`{finding}`" in text("findings.md"), finding


def test_every_metric_says_what_it_measures() -> None:
    for kind in catalog().names("metric"):
        assert len(catalog().load("metric", kind).__doc__ or "") > 60, kind


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_are_no_longer_than_a_screen(page: Path) -> None:
    long = [f"{n}: {line[:60]}" for n, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
            if len(line) > 120]  # fmt: skip
    assert long == []


def test_every_picture_shown_is_there() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES
             for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))}  # fmt: skip
    assert shown
    assert {path.name for path in shown if not path.is_file()} == set()


def test_pictures_fetch_nothing() -> None:
    for path in (DOCS / "images").glob("*.svg"):
        addresses = set(re.findall(r"https?://[^\s\"'<)]+", path.read_text(encoding="utf-8")))
        assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never fetched
