"""`vqtool check` and `vqtool schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipe.text import GOOD
from vqtool.commands import check, schema
from vqtool.console import out
from vqtool.errors import VqtoolError

pytestmark = pytest.mark.usefixtures("toy")


def test_a_sound_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "toys.toml"
    path.write_text(GOOD)
    assert check.run(recipe=path, overrides=["quantizer.codebook_size=4"], dry_run=False) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path} is valid\n"
    assert "codebook_size = 4, temperature = 1.0" in captured.err
    assert "2 epochs" in captured.err


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "toys.toml"
    path.write_text(GOOD)
    out.mode = "json"
    check.run(recipe=path, overrides=[], dry_run=False)
    result = json.loads(capsys.readouterr().out)
    assert (result["recipe"], result["sound"], result["dry_run"]) == (str(path), True, False)
    assert result["resolved"]["parts"]["quantizer"]["options"]["codebook_size"] == 16


def test_a_negative_weight_gives_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "toys.toml"
    path.write_text(GOOD.replace("commitment = 0.25", "commitment = -0.25"))
    warning = "the weight of loss `commitment` in stage `first` is negative"
    assert check.run(recipe=path, overrides=[], dry_run=False) == 0
    assert warning in capsys.readouterr().err
    out.mode = "json"
    check.run(recipe=path, overrides=[], dry_run=False)
    (result,) = json.loads(capsys.readouterr().out)["warnings"]
    assert result.startswith(warning)
    path.write_text(GOOD)
    check.run(recipe=path, overrides=[], dry_run=False)
    assert json.loads(capsys.readouterr().out)["warnings"] == []


def test_a_dry_run_takes_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vqtool.training.session

    path = tmp_path / "toys.toml"
    path.write_text(GOOD)
    stepped = []
    monkeypatch.setattr(
        vqtool.training.session, "try_stages", lambda recipe, *, step: stepped.append(recipe) if step else None
    )
    check.run(recipe=path, overrides=[], dry_run=True)
    assert [recipe.title for recipe in stepped] == ["toys"]


def test_a_bad_recipe_raises(tmp_path: Path) -> None:
    path = tmp_path / "toys.toml"
    path.write_text(GOOD.replace("strides", "stride"))
    with pytest.raises(VqtoolError, match="has no option `stride`"):
        check.run(recipe=path, overrides=[], dry_run=False)


def test_the_schema_is_json_in_every_mode(capsys: pytest.CaptureFixture[str]) -> None:
    results = []
    for mode in ("human", "json", "quiet"):
        out.mode = mode  # type: ignore[assignment]
        assert schema.run() == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1] == results[2]
    assert "toy" in results[0]["definitions"]["quantizer"]["properties"]["kind"]["enum"]
