"""What is passed on names no folder, user or machine, and the data are found again all the same."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.run import within as vqtool
from tests.training.tiny import write_recipe
from vqtool.errors import VqtoolError
from vqtool.model.data import check_found, with_data
from vqtool.model.runs import newest_in
from vqtool.recipe import Recipe, load
from vqtool.recipe.portable import plain_word, relative, without_places

MARKS = ("Zebra", "zoe", "zenith")  # folders, the user, the machine


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project below folders with a mark: a run of a recipe as one writes it, and one with absolute paths throughout.

    Both stopped after their first stage.
    """
    home = tmp_path_factory.mktemp("Zebra") / "zoe"
    folder = home / "project"
    (folder / "recipes").mkdir(parents=True)
    (folder / "data").mkdir()
    (home / "store").mkdir()
    recipe = write_recipe(folder / "recipes", prior=True)
    shutil.copy(folder / "recipes" / "signals.npz", home / "store")
    shutil.move(folder / "recipes" / "signals.npz", folder / "data")
    text = recipe.read_text()
    recipe.write_text(text.replace('"signals.npz"', '"../data/signals.npz"'))
    (folder / "recipes" / "far.toml").write_text(
        f"# made in {folder}\n" + text.replace('"signals.npz"', f'"{home}/store/signals.npz"')
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(home))
        patch.setenv("USER", "zoe")
        patch.setattr(socket, "gethostname", lambda: "zenith")
        short = ["-s", "stage.tokenizer.steps=4", "-s", "stage.prior.steps=2"]
        near = vqtool("train", "recipes/tiny.toml", "-o", "runs/near", *short, "--stage", "tokenizer", "--json")
        assert near.returncode == 0, near.stderr
        assert json.loads(near.stdout)["checkpoint"] == str(Path("runs/near/tokenizer.safetensors"))
        far = [folder / "recipes" / "far.toml", "-o", folder / "runs" / "far", *short]
        done = vqtool("train", *far, "--stage", "tokenizer", "-s", f"data.path={home}/store/signals.npz")
        assert done.returncode == 0, done.stderr
        yield folder


def marked(*files: Path) -> list[str]:
    """Which files hold a mark, and by which."""
    found = [(file, mark) for file in files for mark in MARKS
             if mark.encode() in file.read_bytes() or mark in file.name]  # fmt: skip
    return [f"{file.name}: {mark}" for file, mark in found]


def test_nothing_that_is_written_names_the_machine(project: Path) -> None:
    out = project / "out"
    out.mkdir()
    run = project / "runs" / "far"
    data = project.parent / "store" / "signals.npz"
    for words in (
        ["encode", run, data, "--out", out / "codes.safetensors"],
        ["diagnose", run, "--data", data, "--report", out / "r.html", "--plot", out / "p.svg"],
        ["improve", run, "--data", data, "--steps", "1", "--out", out / "better.safetensors"],
    ):
        done = vqtool(*words)
        assert done.returncode == 0, done.stderr
    written = [p for folder in (project / "runs", out) for p in folder.rglob("*") if p.is_file()]
    assert len(written) > 20
    assert marked(*written) == []
    assert "# made in ." in (run / "recipe.toml").read_text()


def test_a_project_that_was_moved_is_evaluated_and_resumed_from_anywhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "moved" / "runs" / "near"
    assert vqtool("evaluate", run).returncode == 0
    done = vqtool("resume", run)
    assert done.returncode == 0, done.stderr
    assert (run / "prior.safetensors").is_file()
    assert json.loads((run / "summary.json").read_text())["checkpoint"] == "prior.safetensors"
    assert vqtool("evaluate", "moved/runs/near").returncode == 0


def test_data_from_outside_of_the_project_are_asked_for(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "runs" / "far", tmp_path / "far")
    shutil.copy(project.parent / "store" / "signals.npz", tmp_path / "far")  # of that name, but who knows whether it is
    for words in (["evaluate"], ["resume"], ["diagnose", "--split", "valid"], ["improve"]):
        done = vqtool(words[0], tmp_path / "far", *words[1:])
        assert done.returncode == 2
        assert "the training data are not found; only the name `signals.npz` was kept" in done.stderr
        assert "--data PATH" in done.stderr
    done = vqtool("resume", tmp_path / "far", "--data", project.parent / "store" / "signals.npz")
    assert done.returncode == 0, done.stderr
    assert marked(*(p for p in (tmp_path / "far").rglob("*") if p.is_file())) == []


def test_a_run_whose_data_are_gone_says_where_they_were_looked_for(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project, tmp_path / "moved", ignore=shutil.ignore_patterns("data"))
    done = vqtool("evaluate", tmp_path / "moved" / "runs" / "near")
    assert done.returncode == 2
    assert "the training data are not found at `" in done.stderr
    assert "moved/recipes/../data/signals.npz`" in done.stderr


def test_other_files_of_the_data_are_looked_for_beside_them(project: Path, tmp_path: Path) -> None:
    (tmp_path / "picks.csv").write_text("")
    lost = Path("(elsewhere)/picks.csv")
    recipe = load(project / "recipes" / "tiny.toml")
    recipe = replace(recipe, data=replace(recipe.data, options={**recipe.data.options, "picks": lost, "n": 3}))
    for path in (tmp_path, tmp_path / "day.mseed"):
        assert with_data(recipe, path).data.options == {
            **recipe.data.options, "path": path, "picks": tmp_path / "picks.csv", "n": 3}  # fmt: skip
    with pytest.raises(VqtoolError, match=r"the file of `data.picks` is not found; only the name `picks.csv` was kept"):
        check_found(with_data(recipe, project).data.options, given=True)


def test_an_old_checkpoint_with_absolute_paths_is_read(project: Path, tmp_path: Path) -> None:
    recipe = load(project / "recipes" / "tiny.toml")
    stored = recipe.resolved()
    del stored["folder_from_cwd"]
    stored["folder"] = str(recipe.folder)
    stored["data"]["options"]["path"] = {"$path": str(project / "data" / "signals.npz")}
    old = Recipe.from_resolved(stored, text="", beside=tmp_path)
    assert old.data.options["path"] == project / "data" / "signals.npz"
    assert old.folder == recipe.folder


def test_relative_paths_are_of_the_working_folder_where_the_run_is_elsewhere(project: Path, tmp_path: Path) -> None:
    stored = json.loads(json.dumps(load("recipes/tiny.toml").resolved(tmp_path)))  # a run on another disk
    assert stored["folder"] is None
    assert stored["folder_from_cwd"] == "recipes"
    again = Recipe.from_resolved(stored, text="", beside=tmp_path)
    assert again.data.options["path"].resolve() == project / "data" / "signals.npz"


def test_who_works_in_the_root_has_no_project_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert relative(project / "data", project / "recipes") == "../data"
    monkeypatch.chdir("/")
    assert relative(project / "data", project / "recipes") is None
    assert relative(project / "data", project) == "data"
    monkeypatch.chdir(project.parent)  # the home
    assert relative(project / "data", project / "recipes") == "../data"
    monkeypatch.chdir(project.parent.parent)
    assert relative(project / "data", project / "recipes") is None


def test_words_and_texts_without_places(project: Path, tmp_path: Path) -> None:
    assert plain_word(f"data.path={tmp_path}/x.npz") == "data.path=x.npz"
    assert plain_word(f"data.path='{tmp_path}/x.npz'") == "data.path=x.npz"
    assert plain_word(str(project / "recipes" / "a.toml")) == "recipes/a.toml"
    assert plain_word("--out") == "--out"
    assert plain_word("../x.toml") == "../x.toml"
    assert without_places(f"{project.parent}/x {project}/y {project}2/z", [], None) == "~/x ./y ~/project2/z"
    assert newest_in(project / "runs" / "near") is not None
