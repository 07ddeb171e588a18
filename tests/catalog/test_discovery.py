"""Discovery: good plugins are taken in, broken ones left out with a reason, names looked up with suggestions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import distribution
from vqtool.catalog import catalog, discovery, use_files
from vqtool.errors import VqtoolError

HEAD = "from vqtool.catalog import Component, hookimpl\n"
GOOD = (
    HEAD
    + "@hookimpl\ndef vqtool_components():\n    yield Component('loss', 'plug-loss', 'plug_good:Nothing', 'Good.')\n"
)
BROKEN = {
    "import": ("import no_such_library\n", "No module named 'no_such_library'"),
    "syntax": ("def (:\n", "SyntaxError"),
    "exit": ("raise SystemExit(3)\n", "SystemExit"),
    "base": ("class Odd(BaseException): pass\nraise Odd('odd')\n", "Odd: odd"),
    "misspelt": (HEAD + "@hookimpl\ndef vqtool_componnents(): return []\n", "did you mean `vqtool_components`?"),
    "undecorated": (HEAD + "def vqtool_components(): return []\n", "is missing the decorator `@hookimpl`"),
    "hookless": ("x = 1\n", "implements no hook"),
    "argument": (HEAD + "@hookimpl\ndef vqtool_metrics(run, raw): pass\n", "raw"),
    "type": (HEAD + "@hookimpl\ndef vqtool_components(): return ['ema']\n", "gave str, not a Component"),
    "none": (HEAD + "@hookimpl\ndef vqtool_components(): return 3\n", "gave int, not Components"),
    "raises": (HEAD + "@hookimpl\ndef vqtool_components(): raise KeyError('oops')\n", "KeyError"),
    "name": (HEAD + "@hookimpl\ndef vqtool_components(): yield Component('loss', 'Bad_Name', 'a:B')\n", "kebab-case"),
    "wrapper": (
        HEAD + "@hookimpl(wrapper=True)\ndef vqtool_metrics(run, row):\n    yield\n",
        "wrappers are not supported",
    ),
    "twice": (
        HEAD + "@hookimpl\ndef vqtool_components(): yield Component('schedule', 'linear', 'a:B')\n",
        "is in vqtool",
    ),
}

pytestmark = pytest.mark.usefixtures("fresh_catalog", "forget_modules")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    """Distributions `plug-NAME`, each with a module `plug_NAME`; no other plugin counts."""
    for name, source in modules.items():
        (folder / f"plug_{name}.py").write_text(source)
        distribution(folder, f"plug-{name}", {name: f"plug_{name}"})
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("VQTOOL_PLUGINS", ",".join(modules))


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_a_broken_plugin_is_left_out_and_the_command_continues(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, reason = BROKEN[what]
    install(tmp_path, monkeypatch, good=GOOD, bad=source)
    found = catalog()
    assert [plugin.name for plugin in found.plugins] == ["vqtool", "good"]
    (broken,) = found.broken
    assert (broken.name, broken.distribution) == ("bad", "plug-bad 1.2")
    assert reason in broken.reason
    assert broken.fix
    assert found.find("loss", "plug-loss").summary == "Good."
    output = capsys.readouterr().err
    assert output.count("plugin `bad` of plug-bad 1.2 is broken") == 1
    assert catalog() is found  # and is not reported again
    assert capsys.readouterr().err == ""


def test_a_broken_plugin_is_silent_in_broadcasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = (
        HEAD
        + "@hookimpl\ndef vqtool_components(): return 3\n@hookimpl\ndef vqtool_diagnose(report): return ['heard']\n"
    )
    install(tmp_path, monkeypatch, bad=half)
    assert catalog().hooks.vqtool_diagnose(report=None) == []


def test_who_provides_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, good=GOOD)
    found = catalog()
    assert found.provider(found.find("loss", "plug-loss")) == "plug-good 1.2"
    assert found.provider(found.find("schedule", "linear")).startswith("vqtool ")
    assert found.plugins[-1].hooks == ("vqtool_components",)


def test_two_plugins_with_the_same_kind_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, good=GOOD, late=GOOD)
    (broken,) = catalog().broken
    assert broken.name == "late"
    assert "plug-good 1.2" in broken.reason
    assert "plug-late 1.2" in broken.reason


def test_the_environment_chooses_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, good=GOOD, other=GOOD.replace("plug-loss", "plug-other"))
    for chosen, expected in (("", []), ("other", ["other"]), ("good,other", ["good", "other"])):
        monkeypatch.setenv("VQTOOL_PLUGINS", chosen)
        assert [p.name for p in discovery.discover().plugins] == ["vqtool", *expected]
    monkeypatch.delenv("VQTOOL_PLUGINS")
    assert {"good", "other"} <= {p.name for p in discovery.discover().plugins}
    monkeypatch.setenv("VQTOOL_PLUGINS", "-other")
    assert {"good", "other"} & {p.name for p in discovery.discover().plugins} == {"good"}
    assert discovery.discover().broken == []


def test_a_heavy_import_is_reported_and_the_plugin_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "heavy_library.py").write_text("")
    monkeypatch.setattr(discovery, "HEAVY", ("heavy_library",))
    install(tmp_path, monkeypatch, good="import heavy_library\n" + GOOD)
    assert [plugin.name for plugin in catalog().plugins] == ["vqtool", "good"]
    output = capsys.readouterr().err
    assert output.count("plugin `good` of plug-good 1.2 slows every command: its import loads `heavy_library`") == 1
    assert "should import it in its parts' modules" in output


def test_an_import_that_takes_long_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SLOW", 0.05)
    install(tmp_path, monkeypatch, good="import time\ntime.sleep(0.1)\n" + GOOD)
    (slow,) = catalog(warn=False).slow
    assert slow.name == "good"
    assert slow.reason == "its import takes 0.1 s"


@pytest.mark.parametrize("text", [b"[vqtool]\nodd = \xff\xfe\n", b"[vqtool]\nodd\n"])
def test_entry_points_that_cannot_be_read_are_reported_and_the_others_kept(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, good=GOOD)
    (tmp_path / "x-1.dist-info").mkdir()
    (tmp_path / "x-1.dist-info" / "entry_points.txt").write_bytes(text)
    found = catalog(warn=False)
    assert [plugin.name for plugin in found.plugins] == ["vqtool", "good"]
    (broken,) = found.broken
    assert "x-1.dist-info" in broken.distribution
    assert "entry_points.txt cannot be read" in broken.reason
    monkeypatch.setenv("VQTOOL_PLUGINS", "")
    assert discovery.discover().broken == []


def test_a_file_given_twice_is_one_plugin(tmp_path: Path) -> None:
    path = tmp_path / "plug_file.py"
    path.write_text(FILE)
    use_files([path, path])
    assert [p.name for p in catalog().plugins if p.distribution == str(path)] == ["plug_file"]


def test_a_broken_file_is_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plug_file.py"
    path.write_text("def (:\n")
    with pytest.raises(VqtoolError) as raised:
        use_files([path])
    assert raised.value.hint == f"fix {path}"
    assert "broken" not in capsys.readouterr().err


def test_what_an_import_prints_goes_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, good="print('hello')\n" + GOOD)
    catalog()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "plugin `good`: hello" in captured.err


def test_a_chosen_plugin_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQTOOL_PLUGINS", "nowhere")
    (broken,) = discovery.discover().broken
    assert broken.name == "nowhere"


def test_an_unknown_kind_suggests_and_mentions_broken_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, bad="import no_such_library\n")
    with pytest.raises(VqtoolError, match='there is no schedule called "liner"') as caught:
        catalog().find("schedule", "liner")
    assert "did you mean `linear`?" in str(caught.value.hint)
    assert "left out as broken: `bad`" in str(caught.value.hint)


@pytest.mark.usefixtures("toy")
def test_hints_of_names() -> None:
    found = catalog()
    cases = {("schedule", "qqqq"): "vqtool plugins schedule", ("loss", "toy-two"): "did you mean `toy`?"}
    for (role, name), hint in cases.items():
        with pytest.raises(VqtoolError) as caught:
            found.find(role, name)
        assert caught.value.hint == hint
    with pytest.raises(VqtoolError, match="role called `quantiser`") as caught:
        found.find("quantiser", "toy")
    assert caught.value.hint == "did you mean `quantizer`?"


@pytest.mark.usefixtures("toy")
def test_roles_come_in_the_order_of_the_data() -> None:
    roles = [c.role for c in catalog().components]
    assert roles.index("data") < roles.index("encoder") < roles.index("quantizer") < roles.index("loss")
    assert catalog().names("quantizer") == sorted(catalog().names("quantizer"))


def test_trace_prints_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = HEAD + "@hookimpl\ndef vqtool_metrics(row): pass\n"
    install(tmp_path, monkeypatch, good=heard)
    monkeypatch.setenv("VQTOOL_TRACE", "1")
    catalog().hooks.vqtool_metrics(run=None, row={})
    output = capsys.readouterr().err
    assert "trace: good: import" in output
    assert "trace: good: vqtool_metrics(run, row)" in output


FILE = '''"""A file of parts."""
from vqtool.api import Loss, Quantizer

class _Shared(Quantizer):
    """No component."""

class Mine(_Shared):
    """My own quantizer."""

class Gap(Loss):
    pass
'''


def test_a_file_of_parts_is_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "my_part.py"
    path.write_text(FILE)
    use_files([path])
    found = catalog()
    assert found.find("quantizer", "my-part").summary == "My own quantizer."
    assert found.load("quantizer", "my-part").__name__ == "Mine"
    assert found.load("loss", "my-part").__name__ == "Gap"
    assert found.provider(found.find("loss", "my-part")) == str(path)
    use_files([])
    assert "my-part" not in catalog().names("quantizer")


def test_a_file_may_name_its_components_by_the_hook(tmp_path: Path) -> None:
    path = tmp_path / "random.py"  # and hides nothing of the standard library
    hook = "\n@hookimpl\ndef vqtool_components():\n    yield Component('quantizer', 'chosen', __name__ + ':Mine')\n"
    path.write_text(FILE + HEAD + hook)
    use_files([path])
    assert catalog().load("quantizer", "chosen").__name__ == "Mine"
    import random

    assert random.random


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library\n", "no_such_library"),
        ("x = 1\n", "no subclass of Data, .*, and no hook"),
        (FILE + "class Second(Loss):\n    pass\n", "two of the role loss"),
    ],
)
def test_a_given_file_that_is_broken_is_an_error(tmp_path: Path, source: str, reason: str) -> None:
    path = tmp_path / "plug_file.py"
    path.write_text(source)
    with pytest.raises(VqtoolError, match=reason):
        use_files([path])


def test_a_given_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="there is no plugin file"):
        use_files([tmp_path / "none.py"])
