"""Parts that are written wrongly: the messages that their author gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import vqtool
from tests.training.tiny import write_recipe

HEAD = "import sys\nfrom vqtool.api import Loss\n\n\nclass Mine(Loss):\n"
FORWARD = "def forward(self, *, x_hat):\n        "
FAULTS = {
    FORWARD + "raise RuntimeError('loss broke')": "the plugin `mine` failed: RuntimeError: loss broke",
    FORWARD + "sys.exit(0)": "the plugin `mine` failed: SystemExit: 0",
    FORWARD + "return None": "loss `mine` gave NoneType, not a tensor of one number",
    FORWARD + "return x_hat.mean(-1)": "loss `mine` gave a tensor of shape (2, 1)",
    "def forward(self, x_hat):\n        return x_hat.mean()": "`Mine.forward` takes `x_hat` by place",
    "def __init__(self):\n        super().__init__(None)": "loss `mine` cannot be made with its arguments",
}


def faulty(folder: Path, body: str) -> list[str]:
    """The arguments of a dry run with such a loss."""
    (folder / "mine.py").write_text(f"{HEAD}    {body}\n")
    recipe = write_recipe(folder)
    recipe.write_text(recipe.read_text().replace("losses = { mse = 1.0,", "losses = { mine = 1.0,"))
    return ["check", str(recipe), "--dry-run", "--plugin", str(folder / "mine.py")]


@pytest.mark.parametrize("body", FAULTS)
def test_the_message_to_the_author(body: str, tmp_path: Path) -> None:
    done = vqtool(*faulty(tmp_path, body), "--json")
    assert done.returncode != 0
    result = json.loads(done.stdout)["error"]
    assert result["message"].startswith(FAULTS[body]), done.stderr
    if "the plugin" in FAULTS[body]:
        assert result["where"] == f"{tmp_path / 'mine.py'}:7"
    assert "Traceback" not in done.stderr


def test_what_a_part_prints_is_not_a_result(tmp_path: Path) -> None:
    done = vqtool(
        *faulty(tmp_path, "def forward(self, *, x_hat):\n        print('NOISE')\n        return x_hat.mean()"), "--json"
    )
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert "NOISE" in done.stderr
