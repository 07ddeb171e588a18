"""Nothing heavy loads early: module absence, not milliseconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.tiny import write_recipe

HEAVY = ("torch", "numpy", "pydantic", "pluggy", "safetensors", "rich", "importlib.metadata")


def loaded_after(code: str, *watched: str) -> set[str]:
    """Which of the watched modules a fresh Python holds after running `code`."""
    script = f"{code}\nimport sys\nprint('|'.join(m for m in {watched!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split("|")) - {""}


def command(*arguments: str) -> str:
    argv = ["vqtool", *arguments]
    return f"import sys\nsys.argv = {argv!r}\nfrom vqtool.cli import main\ntry:\n  main()\nexcept SystemExit: pass"


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_and_version_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert loaded_after(command(*arguments), *HEAVY) == set()


def test_importing_vqtool_loads_nothing_heavy() -> None:
    assert loaded_after("import vqtool, vqtool.catalog, vqtool.errors, vqtool.console", *HEAVY) == set()


def test_loading_every_plugin_leaves_torch_out() -> None:
    code = "from vqtool.catalog import catalog\nassert catalog().components"
    assert loaded_after(code, "torch", "numpy", "pydantic", "pluggy") == {"pluggy"}


def test_plugins_and_show_need_no_torch(tmp_path: object) -> None:
    assert "torch" not in loaded_after(command("plugins"), "torch")
    assert "torch" not in loaded_after(command("show", "nothing-here"), "torch")


def test_check_and_training_leave_the_compiler_of_torch_out(tmp_path: Path) -> None:
    """The optimizers of torch import it: the first figures would come four seconds later."""
    recipe = write_recipe(tmp_path)
    assert loaded_after(command("check", str(recipe)), "torch", "torch._dynamo") == {"torch"}
    assert loaded_after(command("train", str(recipe), "-o", str(tmp_path / "run")), "torch", "torch._dynamo") == {
        "torch"
    }
    assert (tmp_path / "run" / "summary.json").is_file()


def test_public_names_load_when_asked() -> None:
    assert "torch" not in loaded_after("import vqtool; vqtool.hookimpl; vqtool.Component", "torch")


def test_the_version_is_the_distribution_s() -> None:
    from importlib.metadata import version

    import vqtool

    assert vqtool.__version__ == version("vqtool")


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    import vqtool

    with pytest.raises(AttributeError, match="nothing_such"):
        vqtool.nothing_such  # noqa: B018 - the access is the test


@pytest.mark.parametrize("start", [["-m", "vqtool"], ["-P", "-m", "torch.distributed.run", "--standalone",
                                                      "--nproc-per-node", "1", "-m", "vqtool"]])  # fmt: skip
def test_no_module_of_the_working_folder_is_run(tmp_path: Path, start: list[str]) -> None:
    """`torchrun` is a script: its own folder comes first, as with -P, and its workers are `python -m vqtool`."""
    for module in ("json", "torch", "numpy", "typing", "re", "typer", "inspect", "enum", "pydantic", "vqtool_voltage"):
        (tmp_path / f"{module}.py").write_text(f"open('MARK-{module}', 'w').close()\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([sys.executable, *start, "check", "none.toml"], cwd=tmp_path, env=env, capture_output=True,
                          text=True, check=False, timeout=300)  # fmt: skip
    assert "there is no recipe `none.toml`" in done.stderr
    assert not list(tmp_path.glob("MARK-*"))
    done = subprocess.run([sys.executable, "-m", "vqtool", "plugins", "quantizer"], cwd=tmp_path, env=env,
                          capture_output=True, text=True, check=False, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("MARK-*"))


def test_a_loaded_model_leaves_the_compiler_out() -> None:
    code = "import vqtool\nvqtool.load('forecaster').parts"
    assert loaded_after(code, "torch", "torch._dynamo") == {"torch"}
