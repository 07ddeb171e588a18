"""Components and scanning."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from vqtool.catalog import Component, scan
from vqtool.catalog.component import BASES, PACKAGES, first_line


def package(folder: Path, files: dict[str, str]) -> None:
    """A package `plug` with these files."""
    (folder / "plug").mkdir()
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / "plug" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.usefixtures("forget_modules")
def test_scan_lists_files_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "two_words.py": '#!/usr/bin/env python\n# a comment\n"""  The summary.\n\nMore."""\nraise RuntimeError\n',
        "plain.py": "raise RuntimeError\n",
        "_shared.py": '"""Not a component."""\n',
        "inner/__init__.py": '"""Not a component either."""\n',
    }
    package(tmp_path, files)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert scan("plug", role="loss") == [
        Component("loss", "plain", "plug.plain", ""),
        Component("loss", "two-words", "plug.two_words", "The summary."),
    ]
    assert not [name for name in sys.modules if name.startswith("plug.")]


def test_scanning_nothing_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="vqtool_nowhere"):
        scan("vqtool_nowhere", role="loss")
    with pytest.raises(ModuleNotFoundError, match="errors"):
        scan("vqtool.errors", role="loss")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('"""One."""', "One."),
        ("'''\nTwo.\nThree.'''", "Two."),
        ('r"raw"', "raw"),
        ("# only a comment", ""),
        ("", ""),
        ('x = """no docstring"""', ""),
    ],
)
def test_first_line(source: str, line: str) -> None:
    assert first_line(source) == line


@pytest.mark.parametrize(
    "wrong",
    [
        ("Loss", "a", "m:C"),
        ("loss", "A_b", "m:C"),
        ("loss", "-a", "m:C"),
        ("loss", "a", "m/n:C"),
        ("loss", "a", "m:C.d"),
    ],
)
def test_malformed_components_are_refused(wrong: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match=r"is not a (role|kind|target)"):
        Component(*wrong)


def test_every_role_has_a_contract_and_a_folder() -> None:
    import vqtool.api
    import vqtool.parts

    for role, base in BASES.items():
        assert isinstance(getattr(vqtool.api, base), type)
        assert importlib.util.find_spec(PACKAGES[role]) is not None
    root = Path(vqtool.parts.__file__).parent
    folders = {f"vqtool.parts.{path.name}" for path in root.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {package for package in PACKAGES.values() if package.startswith("vqtool.parts.")}


def test_a_file_may_hold_several_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "holdsseveral"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "two.py").write_text(
        '"""Two."""\n\n\n# kind: first-one\nclass A(object):\n    """The first."""\n\n\n'
        '# kind: second\nclass B(A, metaclass=type):\n    """The second.\n\n    More of it.\n    """\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [(c.name, c.target, c.summary) for c in scan("holdsseveral", "quantizer")]
    assert found == [("first-one", "holdsseveral.two:A", "The first."), ("second", "holdsseveral.two:B", "The second.")]
