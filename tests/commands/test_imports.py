"""No command imports another: what several share has a room of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import vqtool.commands

FOLDER = Path(vqtool.commands.__file__).parent
SHARED = {"outputs"}  # no command, but the check that every command which writes makes
HALVES = {  # one command in two files or three
    ("evaluate", "sweep"),
    ("diagnose", "diagnose_data"),
    ("encode", "pipes"),
    ("encode", "streams"),
    ("streams", "pipes"),
}


def test_no_command_imports_another() -> None:
    found = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [alias.name for alias in node.names] if node.module == "vqtool.commands" else []
                names += [node.module.split(".")[2]] if node.module.startswith("vqtool.commands.") else []
                found |= {(path.stem, name) for name in names if name not in SHARED}
    assert found == HALVES
