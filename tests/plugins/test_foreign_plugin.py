"""A plugin of a distribution of its own, used through every command that a plugin's author needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plugins.conftest import ROOT, Environment

EXAMPLE = ROOT / "plugins" / "example"
TEXTS = [p for p in EXAMPLE.rglob("*") if p.suffix in (".py", ".toml") and "build" not in p.parts]


def test_it_is_small() -> None:
    assert sum(len(p.read_text().splitlines()) for p in TEXTS) < 120


def test_plugins_lists_it(environment: Environment, tmp_path: Path) -> None:
    result = json.loads(environment.run("vqtool", "plugins", "--json", cwd=tmp_path).stdout)
    found = {(c["role"], c["name"]) for c in result["components"] if c["provider"] == "vqtool-example 0.1.0"}
    assert found == {("quantizer", "grid"), ("loss", "slope"), ("data", "sines")}
    assert result["broken"] == []


def test_verify(environment: Environment, tmp_path: Path) -> None:
    done = environment.run("vqtool", "verify", "quantizer", "grid", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert done.returncode == 0
    assert result["broken"] == 0
    assert result["kept"] > 15


def test_its_own_tests(environment: Environment, tmp_path: Path) -> None:
    few = ["-k", "slope or nearest-code or straight-through-gain"]  # all laws are those of `verify` above
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "tests", *few]
    done = environment.run("python", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def run(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's recipe, checked and trained."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "example.toml").write_text((EXAMPLE / "example.toml").read_text())
    checked = environment.run("vqtool", "check", "example.toml", cwd=folder)
    assert checked.returncode == 0, checked.stderr
    trained = environment.run("vqtool", "train", "example.toml", "-o", "run", "--json", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["splits"]["test"]["model"]["error.mean"] < 0.5
    return folder / "run"


def test_diagnose(environment: Environment, run: Path) -> None:
    done = environment.run("vqtool", "diagnose", run, "--json", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["codebooks"]) == 4


def test_without_the_plugin_its_checkpoint_says_what_is_needed(environment: Environment, run: Path) -> None:
    done = environment.run("vqtool", "evaluate", run, cwd=run.parent, VQTOOL_PLUGINS="")
    assert done.returncode != 0
    assert "vqtool-example" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_plugin_passes_its_tests_as_written(environment: Environment, tmp_path: Path) -> None:
    done = environment.run("vqtool", "new", "plugin", "my-vq", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "example" not in "".join(p.read_text() for p in (tmp_path / "my-vq").rglob("*.py"))
    assert "pip install -e '.[test]' && pytest" in (tmp_path / "my-vq" / "README.md").read_text()
    assert 'test = ["pytest"]' in (tmp_path / "my-vq" / "pyproject.toml").read_text()
    tested = environment.run(
        "python", "-m", "pytest", "-q", "my-vq", "-k", "slope or nearest-code", cwd=tmp_path, PYTHONPATH="my-vq"
    )
    assert tested.returncode == 0, tested.stdout
