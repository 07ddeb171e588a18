"""What <TAB> offers, asked as a shell asks, and in the shells themselves where they are installed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vqtool.completion import offered, roles_with_laws

SCRIPTS = Path(sys.executable).parent  # completion goes by the command's name, so `python -m vqtool` won't do
PATH = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"


def vqtool(**environment: str) -> str:
    """What the command prints under such an environment."""
    env = {**os.environ, **environment}
    return subprocess.run([SCRIPTS / "vqtool"], capture_output=True, text=True, env=env, check=False).stdout


def completions(line: str) -> list[str]:
    """What a line's last word may become."""
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_VQTOOL_COMPLETE": "complete_bash"}
    return vqtool(**asked).split()


@pytest.mark.parametrize(("line", "among"), [
    ("vqtool diag", {"diagnose"}),
    ("vqtool plugins qu", {"quantizer"}),
    ("vqtool plugins prior gp", {"gpt"}),
    ("vqtool verify ", {"prior", "quantizer"}),
    ("vqtool verify quantizer residual-", {"residual-ema", "residual-waterfill"}),
    ("vqtool new mine --from volt", {"voltage"}),
    ("vqtool export ckpt --to ", {"onnx", "pt2", "fp16"}),
    ("vqtool forecast --fill f", {"ffill"}),
    ("vqtool bench quant", {"quantizers"}),
    ("vqtool bench quantizers ema cos", {"cosine"}),
])  # fmt: skip
def test_values_are_offered(line: str, among: set[str]) -> None:
    assert set(completions(line)) == among


def test_the_roles_offered_are_those_with_laws() -> None:
    from vqtool.commands.verify import WITH_LAWS

    assert roles_with_laws(None, "") == sorted(WITH_LAWS)  # type: ignore[arg-type]  # the context is not read


def test_a_fault_offers_nothing() -> None:
    def faulty(context: object) -> list[str]:
        raise RuntimeError

    assert offered(faulty)(None, "") == []


def script(shell: str, folder: Path) -> Path:
    """The script that sets completion up in a shell."""
    file = folder / f"completion.{shell}"
    file.write_text(vqtool(_VQTOOL_COMPLETE=f"source_{shell}"))
    return file


def shell_needed(name: str) -> str:
    """The path of a shell; skips where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def run(command: list[str], home: Path) -> str:
    """What a shell prints that finds `vqtool` on its path."""
    env = {**os.environ, "PATH": PATH, "HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    return done.stdout + done.stderr


def test_in_bash(tmp_path: Path) -> None:
    asks = "COMP_WORDS=(vqtool diag); COMP_CWORD=1; _vqtool_completion vqtool; echo ${COMPREPLY[@]}"
    result = run(
        [shell_needed("bash"), "-c", f"source {script('bash', tmp_path)}; complete -p vqtool; {asks}"], tmp_path
    )
    assert result.splitlines() == ["complete -o default -F _vqtool_completion vqtool", "diagnose"]


def test_in_fish(tmp_path: Path) -> None:
    lines = f"source {script('fish', tmp_path)}; complete -C 'vqtool diag'"
    result = run([shell_needed("fish"), "--no-config", "-c", lines], tmp_path)
    assert result.split("\t")[0] == "diagnose", result


def test_in_zsh(tmp_path: Path) -> None:
    zsh = shell_needed("zsh")  # whose completion works at a terminal only
    setup = f"autoload -U compinit; compinit -u -D; source {script('zsh', tmp_path)}; PS1=READY"
    child, terminal = pty.fork()
    if child == 0:
        os.execve(zsh, [zsh, "-f"], {**os.environ, "PATH": PATH, "HOME": str(tmp_path), "TERM": "dumb"})
    try:
        os.write(terminal, setup.encode() + b"\n")
        assert "\rREADY" in read_until(terminal, "\rREADY")
        os.write(terminal, b"vqtool diag\t")
        assert "vqtool diagnose" in read_until(terminal, "diagnose")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)


def read_until(terminal: int, text: str, seconds: float = 30) -> str:
    """What a terminal shows until it shows a text, or no more comes in time."""
    shown, end = "", time.monotonic() + seconds
    while text not in shown and select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown
