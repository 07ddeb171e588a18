"""The command line itself: help, usage errors, exit codes, what bodies receive."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.cli.run import signatures, vqtool
from vqtool import cli
from vqtool import command as made
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.model.forecasting import SamplingOptions

COMMANDS = ("train", "resume", "evaluate", "generate", "forecast", "backtest", "encode", "decode", "verify", "bench",
            "check", "new", "show", "plugins", "schema")  # fmt: skip


def received(monkeypatch: pytest.MonkeyPatch, module: str, *arguments: str, function: str = "run") -> dict[str, Any]:
    """The keyword arguments that a command's body gets."""
    values: dict[str, Any] = {}
    fake = types.SimpleNamespace(**{function: lambda **given: values.update(given)})
    monkeypatch.setattr(
        made.importlib, "import_module", lambda name: fake if name == f"vqtool.commands.{module}" else None
    )
    done = CliRunner().invoke(cli.app, list(arguments))
    assert done.exit_code == 0, done.output
    return values


def body_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code of a command whose body raises."""

    def run(**_: Any) -> None:
        raise error

    monkeypatch.setattr(made.importlib, "import_module", lambda name: types.SimpleNamespace(run=run))
    return made.guarded("check", out.mode == "json", False, [], {})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_the_common_options(command: str) -> None:
    done = CliRunner().invoke(cli.app, [command, "--help"])
    assert done.exit_code == 0
    for option in ("--json", "--quiet", "--plugin"):
        assert option in done.output
    listed = CliRunner().invoke(cli.app, ["--help"]).output
    (line,) = [line for line in listed.splitlines() if line.strip().startswith(f"{command} ")]
    assert not line.endswith("...")


def test_every_parameter_has_a_help_text() -> None:
    for command in COMMANDS:
        for parameter in signatures()[command].parameters.values():
            (info,) = parameter.annotation.__metadata__
            assert info.help, (command, parameter.name)
            assert info.help.endswith("."), (command, parameter.name)


def test_train_s_values(monkeypatch: pytest.MonkeyPatch) -> None:
    given = received(monkeypatch, "train", "train", "r.toml", "-s", "a.b=1", "--set", "c=2", "-o", "run", "--seed", "4",
                     "--device", "cpu", "--stage", "one", "--from", "first")  # fmt: skip
    assert given == {
        "recipe": Path("r.toml"), "overrides": ["a.b=1", "c=2"], "out_dir": Path("run"), "seed": 4, "device": "cpu",
        "stage": "one", "only": False, "start": Path("first"), "stop_on": None, "fresh": None,
    }  # fmt: skip
    given = received(monkeypatch, "train", "train", "r.toml")
    assert given["overrides"] == []
    assert (given["device"], given["seed"]) == ("auto", None)


def test_other_commands_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert received(monkeypatch, "train", "resume", function="resume") == {
        "run": None, "device": "auto", "stop_on": None, "data": None, "force": False,
    }  # fmt: skip
    given = received(monkeypatch, "generate", "generate", "c", "--condition", "i", "--out", "o", "--beam", "8")
    assert (given["checkpoint"], given["condition"], given["out_file"]) == (Path("c"), Path("i"), Path("o"))
    assert (given["beam"], given["temperature"], given["samples"], given["seed"]) == (8, None, 1, 0)
    given = received(monkeypatch, "encode", "decode", "c", "codes", "--out", "o", function="decode")
    assert given == {
        "checkpoint": Path("c"), "codes_file": Path("codes"), "out_file": Path("o"), "levels": None, "device": "auto",
        "raw": False, "force": False,
    }  # fmt: skip
    given = received(monkeypatch, "verify", "verify", "quantizer", "--arg", "dim=4", "--arg", "k=2")
    assert given == {
        "target": "quantizer", "kind": None, "arguments": ["dim=4", "k=2"], "seed": 0, "laws": [], "skip": [],
        "layout": None, "forward": None, "update": None, "decode": None, "strict": False,
    }  # fmt: skip


def test_real_bodies_take_what_the_command_line_gives() -> None:
    import importlib

    bodies = {"resume": "train", "decode": "encode", "backtest": "forecast"}
    for command in COMMANDS:
        own = signatures()[command].parameters.keys() - {"json_", "quiet", "plugin"}
        module = importlib.import_module(f"vqtool.commands.{bodies.get(command, command)}")
        body = getattr(module, command if command in bodies else "run")
        taken = set(inspect.signature(body).parameters)
        if "asked" in taken:  # passed on to `opened`, and from there to `SamplingOptions`
            taken |= inspect.signature(module.opened).parameters.keys() - {"files"}
            taken |= inspect.signature(SamplingOptions).parameters.keys()
        if "checks" in taken:  # all of `How`
            taken |= inspect.signature(module.How).parameters.keys()
        assert own == taken - {"asked", "sampling", "checks"}, command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (VqtoolError("a mistake", exit_code=2), 2, "error: a mistake"),
        (VqtoolError("it failed", exit_code=1), 1, "error: it failed"),
        (KeyboardInterrupt(), 130, "stopped"),
        (OSError(28, "No space left on device", "f.bin"), 1, "error: no space left on device `f.bin`"),
        (RuntimeError("shape\nmismatch"), 1, "error: internal: RuntimeError: shape"),
        (MemoryError("Unable to allocate 2 GiB"), 1, "error: there is not enough memory: unable to allocate 2 GiB"),
        (ValueError(), 1, "error: internal: ValueError"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VQTOOL_DEBUG", raising=False)
    assert body_raises(monkeypatch, error) == code
    heard = capsys.readouterr()
    assert message in heard.err
    assert "Traceback" not in heard.err
    assert heard.out == ""


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VQTOOL_DEBUG", "1")
    assert body_raises(monkeypatch, RuntimeError("deep")) == 1
    assert "Traceback" in capsys.readouterr().err
    assert body_raises(monkeypatch, VqtoolError("mine")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_body_chooses_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, expected in ((None, 0), (0, 0), (143, 143)):
        fake = types.SimpleNamespace(run=lambda code=code: code)
        monkeypatch.setattr(made.importlib, "import_module", lambda name, fake=fake: fake)
        assert made.guarded("check", False, False, [], {}) == expected


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["trian"], "no such command `trian`", "did you mean `train`, `transmit`?"),
        (["check"], "missing argument `RECIPE`", "vqtool check --help"),
        (["check", "r.toml", "--dry-rum"], "no such option: --dry-rum", "did you mean --dry-run?"),
        (["train", "r.toml", "--seed", "x"], "invalid value for `--seed`", "vqtool train --help"),
        (["train", "r.toml", "--device", "gpu"], "invalid value for `--device`", "vqtool train --help"),
        (["generate", "c", "--condition", "f", "--out", "o", "--beam", "0"], "invalid value for `--beam`", "--help"),
    ],
)
def test_bad_usage_is_reported_like_any_error(
    arguments: list[str], message: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for extra in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["vqtool", *arguments, *extra])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 2
        heard = capsys.readouterr()
        if extra:
            error = json.loads(heard.out)["error"]
            assert message in error["message"]
            assert hint in error["hint"]
        else:
            assert f"error: {message}" in heard.err
            assert hint in heard.err
            assert heard.out == ""


def test_no_command_is_help() -> None:
    done = vqtool()
    assert done.returncode == 2
    assert "Commands:" in done.stdout + done.stderr


def test_a_plugin_file_serves_for_one_command(tmp_path: Path) -> None:
    (tmp_path / "my_ramp.py").write_text(
        '"""A ramp."""\nfrom vqtool.api import Schedule\nclass Ramp(Schedule):\n    pass\n'
    )
    done = vqtool("plugins", "schedule", "--plugin", "my_ramp.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "my-ramp" in done.stdout
    assert "my-ramp" not in vqtool("plugins", "schedule", cwd=tmp_path).stdout
    done = vqtool("plugins", "--plugin", "none.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no plugin file `none.py`" in done.stderr


def test_a_reader_that_stops_early_is_not_a_traceback() -> None:
    command = [sys.executable, "-m", "vqtool", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        result = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in result
    assert "BrokenPipe" not in result


GOOD = """
from vqtool.command import command
@command("my_plugin.mine:run")
def {name}(size: int) -> None:
    'What mine does.'
"""


@pytest.mark.parametrize(("text", "message"), [
    ("raise RuntimeError('boom')", "RuntimeError: boom"),
    ("raise SystemExit(3)", "SystemExit: 3"),
    (GOOD.format(name="mine") + "raise RuntimeError('late')", "RuntimeError: late"),
    (GOOD.format(name="train"), "there is a command `train` already"),
])  # fmt: skip
def test_a_plugin_s_command_that_fails_is_left_out(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "vqtool_commands").mkdir()
    (tmp_path / "vqtool_commands" / "bad.py").write_text(text)
    (tmp_path / "vqtool_commands" / "good.py").write_text(GOOD.format(name="fine"))
    done = vqtool("--help", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    assert f"the commands of `vqtool_commands.bad` are left out: {message}" in done.stderr.replace("ValueError: ", "")
    assert "Train every stage of a recipe." in done.stdout
    assert done.stdout.count("What mine does.") == 1
    none = vqtool("--help", PYTHONPATH=str(tmp_path), VQTOOL_PLUGINS="")
    assert (none.returncode, none.stderr) == (0, "")
    assert "transmit" not in none.stdout
    assert "Examples:" not in vqtool("fine", "--help", PYTHONPATH=str(tmp_path)).stdout
