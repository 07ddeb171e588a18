"""From names to classes and objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import distribution
from vqtool.catalog import Component, catalog
from vqtool.catalog.loading import load_class
from vqtool.errors import VqtoolError

LOSS = "from vqtool.api import Loss\nclass One(Loss):\n    pass\n"

pytestmark = pytest.mark.usefixtures("fresh_catalog", "forget_modules")


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str = "plug_part") -> Component:
    (folder / "plug_part.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    return Component("loss", "part", target)


def test_the_one_class_of_the_role_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        LOSS + "from vqtool.api import Quantizer\nclass Other(Quantizer): pass\nclass _Base(Loss): pass\nAlias = Loss\n"
    )
    assert load_class(module(tmp_path, monkeypatch, source), "plug 1").__name__ == "One"


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("x = 1\n", "plug_part", "defines none"),
        (LOSS + "class Two(Loss): pass\n", "plug_part", "defines `One`, `Two`"),
        (LOSS, "plug_part:Tow", "is not a subclass of Loss"),
        ("class One: pass\n", "plug_part:One", "is not a subclass of Loss"),
        ("1 / 0\n", "plug_part", "ZeroDivisionError"),
        ("from math import nothing_such\n", "plug_part", "cannot import name"),
        (LOSS, "plug_part.deeper", "there is no module `plug_part.deeper`"),
        (LOSS, "plug_nowhere:One", "there is no module `plug_nowhere`"),
    ],
)
def test_a_broken_part_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str, message: str
) -> None:
    with pytest.raises(VqtoolError, match=message) as caught:
        load_class(module(tmp_path, monkeypatch, source, target), "plug 1")
    assert "loss `part` of plug 1" in caught.value.message
    assert caught.value.exit_code == 1


def test_a_missing_library_names_the_extra_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "plug-field", {}, requires=('no-such-lib>=1; extra == "field"', "other"))
    component = module(tmp_path, monkeypatch, "import no_such_lib.inner\n" + LOSS)
    with pytest.raises(VqtoolError, match="needs the library `no_such_lib`") as caught:
        load_class(component, "plug-field 1.2")
    assert caught.value.hint == "pip install 'plug-field[field]'"
    with pytest.raises(VqtoolError, match="no_such_lib") as caught:
        load_class(component, "unknown 1")
    assert caught.value.hint == "install the library that brings `no_such_lib`"


def test_an_error_of_ours_passes_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from vqtool.errors import missing_extra\nraise missing_extra('h5py', 'field', 'loss `part`')\n"
    with pytest.raises(VqtoolError) as caught:
        load_class(module(tmp_path, monkeypatch, source), "plug 1")
    assert caught.value.hint == "pip install 'vqtool[field]'"


@pytest.mark.usefixtures("toy")
def test_make_passes_wiring_and_options() -> None:
    quantizer = catalog().make("quantizer", "toy", {"codebook_size": 32}, 7)
    assert (quantizer.dim, quantizer.codebook_sizes) == (7, (32,))
    assert catalog().make("loss", "toy", {"from": 3}, None).from_ == 3  # a Python keyword


@pytest.mark.usefixtures("toy")
def test_a_value_error_of_a_constructor_is_the_user_s_to_fix() -> None:
    with pytest.raises(VqtoolError, match="quantizer `toy`: thirteen codes bring bad luck") as caught:
        catalog().make("quantizer", "toy", {"codebook_size": 13}, 7)
    assert caught.value.where == "[quantizer]"
    assert caught.value.exit_code == 2
