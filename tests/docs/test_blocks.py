"""The blocks of the pages that teach are run: Python as it stands, and commands, whose output must be as shown."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.run import vqtool
from tests.docs.setups import SETUPS
from vqtool.command import app

ROOT = Path(__file__).parents[2]
PAGES = ["first-hour", "collapse", "voltage", "seismic", *SETUPS]
NUMBER = re.compile(r"\d[\d,.e+-]*%?")  # figures are those of another machine
BARS = re.compile("[▁▂▃▄▅▆▇█·]+")


def blocks(page: str) -> list[tuple[str, str, str]]:
    """What makes it short here (`<!-- short: ... -->` before it), the language and text of each block, in order.

    A block after `<!-- not run: REASON -->` is left out.
    """
    text = (ROOT / ("README.md" if page == "README" else f"docs/{page}.md")).read_text(encoding="utf-8")
    found = re.findall(r"(?:<!-- (not run|short): (.*?) -->\n+)?```(python|console)\n(.*?)```", text, re.S)
    return [(options, language, block) for how, options, language, block in found if how != "not run"]


def words(line: str) -> str:
    """A line without its figures and the space between."""
    return " ".join(BARS.sub("|", NUMBER.sub("0", line)).split())


def holds(shown: list[str], printed: list[str]) -> str | None:
    """The first line shown that was not printed in this order; lines `...` and empty ones stand for anything."""
    rest = iter(map(words, printed))
    for line in shown:
        if line.strip() not in ("", "...") and words(line) not in rest:
            return line
    return None


def run_commands(block: str, folder: Path, short: str = "") -> None:
    """Run each `$ command`, one that trains with the options `short`, and compare what it printed with the lines below.

    Raises:
        AssertionError: it failed, or printed something else.
    """
    for piece in re.split(r"(?m)^\$ ", block.replace("\\\n", ""))[1:]:
        command, *shown = piece.splitlines()
        program, *rest = command.split(maxsplit=1)
        assert program == "vqtool", command
        rest[0] += f" {short}" if rest[0].startswith("train") else ""
        done = (
            in_a_shell(command, folder) if {"|", "<", ">"} & set(shlex.split(command))
            else vqtool(*shlex.split(rest[0]), cwd=folder, merged=True, COLUMNS="100")
        )  # fmt: skip
        fine = (0, 3) if rest[0].startswith("verify") else (0,)  # 3: a law is broken
        failed = any(line.startswith("error: ") for line in shown)
        assert (done.returncode in fine) != failed, f"{command}\n{done.stdout}"
        missing = holds(shown, done.stdout.splitlines())
        assert missing is None, f"{command}\nshould print: {missing}\nbut printed:\n{done.stdout}"


def in_a_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What commands that are joined by pipes print, and the exit code of the last."""
    script = f'vqtool() {{ "$0" -m vqtool "$@"; }}; {command}'
    return subprocess.run(["/bin/sh", "-c", script, sys.executable], cwd=folder, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_it_stands(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "registered_commands", list(app.registered_commands))  # a page adds one
    names: dict[str, object] = {}
    exec(SETUPS.get(page, ""), names)
    ran = 0
    for short, language, block in blocks(page):
        if language == "console":
            run_commands(block, tmp_path, short)
        else:
            exec(compile(block, f"docs/{page}.md", "exec"), names)
        ran += 1
    assert ran > (0 if page in SETUPS else 2)


def test_the_part_of_the_contributors_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, test = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "huber.py").write_text(part, encoding="utf-8")
    run_commands("$ vqtool plugins loss huber --plugin huber.py\n...\n", tmp_path)
    module = types.ModuleType("vqtool.parts.losses.huber")
    exec(part, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names: dict[str, Callable[[], None]] = {}
    exec(test, names)
    for name in [name for name in names if name.startswith("test_")]:
        names[name]()


def test_another_output_is_seen() -> None:
    assert holds(["codes  128", "healthy: no"], ["codes 12", "", "healthy: no"]) is None
    assert holds(["codes  128", "healthy: no"], ["codes 12", "unhealthy"]) == "healthy: no"
    assert holds(["b", "a"], ["a", "b"]) == "a"
