"""What an installed wheel can do outside of the repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plugins.conftest import Environment


@pytest.fixture
def away(tmp_path: Path) -> Path:
    return tmp_path


def test_it_is_the_wheel_that_runs(environment: Environment, away: Path) -> None:
    done = environment.run("python", "-c", "import vqtool; print(vqtool.__file__)", cwd=away)
    assert Path(done.stdout.strip()).is_relative_to(environment.folder), done.stdout + done.stderr


def test_recipes_and_their_samples_travel(environment: Environment, away: Path) -> None:
    done = environment.run("vqtool", "new", "mine", "--from", "voltage", cwd=away)
    assert done.returncode == 0, done.stderr
    checked = environment.run("vqtool", "check", "mine.toml", "--dry-run", cwd=away)
    assert checked.returncode == 0, checked.stderr


def test_the_forecaster_travels(environment: Environment, away: Path) -> None:
    rows = "\n".join(f"{2000 + k // 12}-{k % 12 + 1:02d}-01,{k}" for k in range(40))
    (away / "mine.csv").write_text("ds,y\n" + rows)
    done = environment.run("vqtool", "forecast", "--steps", "3", "--data", "mine.csv", cwd=away)
    assert done.returncode == 0, done.stderr


def test_pages_the_codec_and_commands_of_plugins_travel(environment: Environment, away: Path) -> None:
    assert environment.run("vqtool", "help", "collapse", cwd=away).stdout.startswith("# My codebook collapsed")
    assert "residual-waterfill" in environment.run("vqtool", "show", "codec", cwd=away).stdout
    assert "--snr" in environment.run("vqtool", "transmit", "--help", cwd=away).stdout


COPY_AND_CHECK_ALL = """
import sys

from vqtool.cli import main
from vqtool.recipe import shipped

for name in shipped.names():
    without = ["-s", "data.real=0"] if name == "pretrain-forecast" else []  # real series are of another package
    for words in (["new", f"{name}/{name}", "--from", name], ["check", f"{name}/{name}.toml", *without]):
        sys.argv = ["vqtool", *words]
        try:
            main()
        except SystemExit as end:
            assert not end.code, words
print(*shipped.names())
"""


def test_every_shipped_recipe_is_sound(environment: Environment, away: Path) -> None:
    done = environment.run("python", "-c", COPY_AND_CHECK_ALL, cwd=away)
    assert done.returncode == 0, done.stderr
    assert "voltage" in done.stdout.splitlines()[-1].split()


def test_the_schema(environment: Environment, away: Path) -> None:
    done = environment.run("vqtool", "schema", cwd=away)
    assert "grid" in json.dumps(json.loads(done.stdout))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(environment: Environment, away: Path, shell: str) -> None:
    done = environment.run("vqtool", cwd=away, _VQTOOL_COMPLETE=f"source_{shell}")
    assert "_VQTOOL_COMPLETE" in done.stdout, done.stderr


def test_completion_of_a_command(environment: Environment, away: Path) -> None:
    asked = {"_VQTOOL_COMPLETE": "complete_bash", "COMP_WORDS": "vqtool diag", "COMP_CWORD": "1"}
    assert environment.run("vqtool", cwd=away, **asked).stdout.split() == ["diagnose"]
