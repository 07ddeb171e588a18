"""Limits of findings: those of plugins beside vqtool's own, none of which they replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqtool.catalog import use_files
from vqtool.console import out
from vqtool.recipe.recipe import parse
from vqtool.recipe.thresholds import OWN, limit_of, limits

RECIPE = """
[data]
kind = "arrays"
path = "signals.npz"
[encoder]
kind = "conv1d"
[quantizer]
kind = "ema"
[decoder]
kind = "conv1d"
[[stage]]
name = "tokenizer"
task = "autoencode"
steps = 1
losses = { mse = 1.0 }
[diagnose]
odd_codes_warn = 0.4
"""
PLUGIN = """
from vqtool.catalog import Limit, hookimpl

@hookimpl
def vqtool_limits():
    yield Limit("odd-codes", "share of odd codes", 0.9, None, "a guess")
    yield Limit("collapse", "something else", 0.9, None, "a guess")
"""


@pytest.fixture
def plugin(tmp_path: Path):
    """Takes a one-file plugin in for one test."""

    def take(text: str) -> None:
        (tmp_path / "odd.py").write_text(text)
        use_files([tmp_path / "odd.py"])

    yield take
    use_files([])


def test_a_recipe_sets_the_limit_of_a_plugin(plugin) -> None:
    plugin(PLUGIN)
    limit = limit_of("odd-codes", parse(RECIPE).resolved())
    assert (limit.warn, limit.fail, limit.source) == (0.4, None, "the recipe's [diagnose]")
    assert limit.figure == "share of odd codes"
    assert limit.grade(0.5) == ("warn", 0.4)


def test_a_plugin_replaces_no_limit_of_vqtool(plugin) -> None:
    plugin(PLUGIN)
    own = {limit.id: limit for limit in OWN}
    assert {name: limit for name, limit in limits().items() if name in own} == own
    assert list(limits())[: len(own)] == list(own)


def test_without_the_plugin_its_key_is_unknown() -> None:
    with pytest.raises(Exception, match="odd_codes_warn"):
        parse(RECIPE)


def test_a_plugin_that_gives_no_limits_is_muted(plugin, capsys: pytest.CaptureFixture[str]) -> None:
    plugin(PLUGIN.replace('yield Limit("odd-codes", "share of odd codes", 0.9, None, "a guess")', "yield 3"))
    assert out.mode == "human"
    assert "odd-codes" not in limits()
    assert "failed in `vqtool_limits` and is muted" in capsys.readouterr().err
