"""Pictures as people keep them: usual names, orders of axes, ranges, folders by class; what is assumed is reported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.run import within
from tests.fuzz.seeds import MODELS
from tests.images.test_labelled_images import idx
from tests.semcom.conftest import columns
from vqtool.errors import VqtoolError
from vqtool_images import picture_folder
from vqtool_images.data.labelled_images import LabelledImages
from vqtool_images.pictures import pictures

C = columns()
TRAIN, TEST, Y, Y_TEST = C["train_images"], C["test_images"], C["train_labels"], C["test_labels"]
COLOUR = np.stack([TRAIN, TRAIN // 2, 255 - TRAIN], 1)  # channels first


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path / "p.npz", **arrays)
    return path / "p.npz"


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_x", "train_y", "test_x", "test_y"),
        ("train_data", "train_target", "test_data", "test_target"),
        ("images_train", "labels_train", "images_test", "labels_test"),
        ("arr_0", "arr_1", "arr_2", "arr_3"),
    ],
)
def test_usual_names_of_arrays(tmp_path: Path, names: tuple[str, ...]) -> None:
    read = pictures(saved(tmp_path, **dict(zip(names, (TRAIN, Y, TEST, Y_TEST), strict=True))))
    np.testing.assert_array_equal(read.images["train"][:, 0], TRAIN)
    np.testing.assert_array_equal(read.images["test"][:, 0], TEST)
    np.testing.assert_array_equal(read.labels["test"], Y_TEST)
    (note,) = read.notes
    assert all(f"`{name}`" in note for name in names)
    assert note.endswith("are read as train_images, train_labels, test_images, test_labels")


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("x", "y"), ("X", "y"), ("data", "target"), ("arr_0", "arr_1")]
)
def test_one_part_is_split_and_that_is_reported(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = LabelledImages(path=saved(tmp_path, **dict(zip(names, (TRAIN, Y), strict=True))))
    assert "there is no test part: 32 of 160 pictures, a fifth of each class, are held out as `test`" in data.notes
    assert [len(data.rows(split)) for split in data.splits] == [115, 13, 32]
    label = data.rows("test").__getitems__(list(range(32)))["label"]
    assert label.bincount().tolist() == [8, 8, 8, 8]
    again = LabelledImages(path=tmp_path / "p.npz").rows("test").__getitems__(list(range(32)))
    assert again["label"].equal(label)


def test_a_validation_part_is_used(tmp_path: Path) -> None:
    """As MedMNIST has it, labels in columns."""
    path = saved(tmp_path, train_images=TRAIN, val_images=TEST[:12], test_images=TEST,
                 train_labels=Y[:, None], val_labels=Y_TEST[:12, None], test_labels=Y_TEST[:, None])  # fmt: skip
    data = LabelledImages(path=path)
    assert [len(data.rows(split)) for split in data.splits] == [160, 12, 40]


@pytest.mark.parametrize(
    ("array", "note"),
    [
        (COLOUR, None),
        (COLOUR.transpose(0, 2, 3, 1), "taken as height, width and 3 channels"),
        (COLOUR.transpose(2, 3, 1, 0), "the last axis of the pictures counts them"),
        ((COLOUR / 255).astype(np.float32), "float32 are taken as values from 0 to 1 "),
        ((COLOUR / 127.5 - 1).astype(np.float32), "float32 are taken as values from -1 to 1 "),
        (COLOUR.astype(np.float64), "float64 are taken as values from 0 to 255 "),
        (COLOUR.astype(np.int64), "int64 are taken as values from 0 to 255 "),
        (COLOUR.astype(np.uint16) * 16, f"uint16 are taken as values from 0 to {255 * 16}"),
    ],
)
def test_axes_and_ranges(tmp_path: Path, array: np.ndarray, note: str | None) -> None:
    read = pictures(saved(tmp_path, x_train=array, y_train=Y, x_test=array, y_test=Y))
    assert read.images["train"].shape == (160, 3, 8, 8)
    assert read.images["train"].dtype == np.uint8
    np.testing.assert_array_equal(read.images["train"], COLOUR)
    assert note is None or any(note in one for one in read.notes)
    assert len(read.notes) == 1 + (note is not None) + ("counts them" in (note or ""))


def test_rows_of_values_are_square_pictures(tmp_path: Path) -> None:
    """As scikit-learn's digits: values from 0 to 16."""
    rows = np.rint(TRAIN.reshape(160, -1) / 255 * 16).astype(float)
    rows[0, 0] = 16
    read = pictures(saved(tmp_path, data=rows, target=Y))
    assert read.images["train"].shape[1:] == (1, 8, 8)
    assert read.images["train"].max() == 255 or read.images["test"].max() == 255
    assert "rows of 64 values are taken as pictures of 8 x 8" in read.notes
    with pytest.raises(VqtoolError, match="no square picture"):
        pictures(saved(tmp_path, data=rows[:, :60], target=Y))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (Y + 1, ("1", "2", "3", "4")),
        (Y.astype(float), ("0", "1", "2", "3")),
        (np.array(["cat", "dog", "eel", "fox"])[Y], ("cat", "dog", "eel", "fox")),
        (np.eye(4)[Y], ("0", "1", "2", "3")),
        (Y.astype(np.int64) * 10**9, ("0", "1000000000", "2000000000", "3000000000")),
    ],
)
def test_labels_as_numbers_text_or_one_hot(tmp_path: Path, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    read = pictures(saved(tmp_path, images=TRAIN, labels=labels))
    assert read.classes == classes
    mean = read.images["train"][read.labels["train"] == 2].mean((0, 1, 3))
    assert mean.argmax() in (4, 5)  # a bright bar at the place of the class


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": Y + 0.5}, "not whole numbers"),
        ({"labels": np.zeros(160, int)}, "the one label"),
        ({"images": TRAIN - 3.0 * TRAIN.mean()}, "black and white"),
        ({"images": np.full(TRAIN.shape, np.nan)}, "NaN"),
        ({"images": np.zeros((160, 8, 8))}, "one value"),
        ({"images": TRAIN.astype(str)}, "pictures are uint8 or float"),
        ({"labels": np.zeros((160, 3))}, "labels of the shape"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(VqtoolError, match=said):
        pictures(saved(tmp_path, **({"images": TRAIN, "labels": Y} | change)))


def test_other_names_are_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="train_images") as caught:
        pictures(saved(tmp_path, foo=TRAIN, bar=Y))
    assert "it has foo, bar; numpy.savez(FILE, x_train=" in (caught.value.hint or "")


def test_classes_that_only_the_test_has_are_reported(tmp_path: Path) -> None:
    read = pictures(saved(tmp_path, x_train=TRAIN, y_train=Y % 3, x_test=TEST, y_test=Y_TEST))
    assert "1 class is in `test` but not in `train`, so no model knows them: `3`" in read.notes


@pytest.mark.parametrize(
    "name", ["{}-images.idx3-ubyte", "emnist-letters-{}-images-idx3-ubyte", "{}-images-idx3-ubyte"]
)
def test_idx_files_under_the_names_that_they_come_with(tmp_path: Path, name: str) -> None:
    for part in ("train", "test"):
        labels = name.replace("images", "labels").replace("idx3", "idx1")
        (tmp_path / name.format(part)).write_bytes(idx(C[f"{part}_images"]))
        (tmp_path / labels.format(part)).write_bytes(idx(C[f"{part}_labels"]))
    assert len(pictures(tmp_path).images["test"]) == 40
    (tmp_path / f"other-{name.format('train')}").write_bytes(idx(TRAIN))
    with pytest.raises(VqtoolError, match="holds both"):
        pictures(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`p/cat/00.png` and so on: grey PNGs of three classes."""
    for k in range(60):
        place = tmp_path / "p" / ("cat", "dog", "eel")[k % 3] / f"{k:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(TRAIN[k]).save(place)
    return tmp_path / "p"


def test_a_folder_of_pictures_by_class(folder: Path) -> None:
    data = LabelledImages(path=folder)
    assert data.spec.fields["label"].names == ("cat", "dog", "eel")
    assert data.spec.extent == (8, 8)
    assert [len(data.rows(split)) for split in data.splits] == [43, 5, 12]
    kept = {p.numpy().tobytes() for s in data.splits for p in data.rows(s).__getitems__(range(len(data.rows(s))))["x"]}
    assert kept == {(TRAIN[k].astype(np.float32) / 255).tobytes() for k in range(60)}


def test_a_folder_with_train_and_test(folder: Path) -> None:
    (folder / "train").mkdir()
    for name in ("cat", "dog", "eel"):
        (folder / name).rename(folder / "train" / name)
    for name, k in (("cat", 60), ("dog", 61), ("fox", 62)):
        (folder / "test" / name).mkdir(parents=True)
        Image.fromarray(TRAIN[k]).save(folder / "test" / name / "a.png")
    (folder / "extra").mkdir()
    read = pictures(folder)
    assert {part: len(images) for part, images in read.images.items()} == {"train": 60, "test": 3}
    assert "1 folder is skipped, beside `train`: `extra`" in read.notes
    assert "1 class is in `test` but not in `train`, so no model knows them: `fox`" in read.notes


def test_what_cannot_be_read_is_skipped_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cat" / "broken.png").write_bytes(b"no picture")
    (folder / "cat" / "cut.png").write_bytes((folder / "cat" / "00.png").read_bytes()[:60])
    (folder / "dog" / "a.eps").write_bytes(b"%!PS-Adobe")
    (folder / "dog" / "as.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    (folder / "dog" / "x.heic").write_bytes(b"heic")
    (folder / "loose.png").write_bytes((folder / "cat" / "00.png").read_bytes())
    (folder / "cat" / "._00.png").write_bytes(b"hidden")
    Image.new("L", (20_000, 20_000)).save(folder / "eel" / "bomb.png")
    read = pictures(folder)
    assert sum(map(len, read.images.values())) == 60
    for note in (
        "3 pictures are skipped (not a picture that can be read, or damaged): `cat/broken.png`, `cat/cut.png`, "
        "`dog/as.png`",
        "1 picture is skipped (more than 67108864 pixels): `eel/bomb.png`",
        "1 picture is skipped (in no folder of a class): `loose.png`",
    ):
        assert note in read.notes
    assert any("`dog/x.heic`" in note for note in read.notes)
    monkeypatch.setattr(picture_folder, "MEMORY", 1000)
    with pytest.raises(VqtoolError, match="take more than"):
        pictures(folder)


def test_pictures_of_different_sizes_and_the_hint(folder: Path) -> None:
    Image.fromarray(np.full((30, 40), 9, np.uint8)).save(folder / "cat" / "large.png")
    with pytest.raises(VqtoolError, match="differ in size: 8 x 8 and 40 x 30 pixels") as caught:
        LabelledImages(path=folder)
    assert caught.value.hint == "-s data.size=16"
    data = LabelledImages(path=folder, size=16)
    assert data.spec.extent == (16, 16)
    assert "61 pictures scaled to 16 x 16, and cut where not square" in data.notes


def test_modes_of_pictures(folder: Path) -> None:
    colour = np.moveaxis(COLOUR[0], 0, -1)
    clear = np.dstack([colour, np.zeros((8, 8), np.uint8)])
    Image.fromarray(colour).save(folder / "cat" / "a.png")
    Image.fromarray(clear, "RGBA").save(folder / "cat" / "b.png")
    Image.fromarray(colour).quantize(200).save(folder / "cat" / "c.png")
    Image.fromarray(colour).convert("CMYK").save(folder / "cat" / "d.tif")
    Image.fromarray(TRAIN[0].astype(np.uint16) * 257).save(folder / "cat" / "e.png")
    Image.fromarray(TRAIN[0] > 100).save(folder / "cat" / "f.png")
    Image.fromarray(TRAIN[0]).save(folder / "cat" / "g.gif", save_all=True, append_images=[Image.fromarray(TRAIN[1])])
    read = pictures(folder)
    every = np.concatenate(list(read.images.values()))
    assert every.shape == (67, 3, 8, 8)
    for wanted in (COLOUR[0], np.full((3, 8, 8), 255), np.repeat(TRAIN[:1], 3, 0)):
        assert any((one == wanted).all() for one in every)
    assert sum((one == np.repeat(TRAIN[:1], 3, 0)).all() for one in every) >= 2  # the 8 bits and the 16
    for note in ("1 picture transparent in places, and laid on white", "1 picture of more than 8 bits scaled to 8 bits",
                 "1 picture read by the first of several frames"):  # fmt: skip
        assert note in read.notes
    assert any(note.endswith("grey pictures among coloured ones are read as colours") for note in read.notes)


def test_a_picture_that_a_camera_turned(folder: Path) -> None:
    made = Image.fromarray(TRAIN[3])
    exif = Image.Exif()
    exif[0x0112] = 3
    made.rotate(180).save(folder / "cat" / "a.png", exif=exif)
    read = pictures(folder)
    assert "1 picture turned upright, as the camera says" in read.notes
    assert sum((one[0] == TRAIN[3]).all() for images in read.images.values() for one in images) == 2


def test_folders_without_pictures_name_the_layout(tmp_path: Path) -> None:
    with pytest.raises(VqtoolError, match="no pictures") as caught:
        pictures(tmp_path)
    assert "FOLDER/CLASS/NAME.png" in (caught.value.hint or "")
    Image.fromarray(TRAIN[0]).save(tmp_path / "a.png")
    with pytest.raises(VqtoolError, match="no pictures") as caught:
        pictures(tmp_path)
    assert "1 picture is skipped (in no folder of a class): `a.png`" in (caught.value.hint or "")
    with pytest.raises(VqtoolError, match=r"`data\.size` is for folders"):
        pictures(saved(tmp_path, images=TRAIN, labels=Y), size=8)


def test_a_missing_library_names_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(VqtoolError, match="pillow") as caught:
        pictures(folder)
    assert caught.value.hint == "pip install 'vqtool[pictures]'"


def test_a_folder_trains(folder: Path, tmp_path: Path, pictures: Callable[..., Path]) -> None:
    data, parts = MODELS["images"]
    recipe = tmp_path / "r.toml"
    recipe.write_text(f"[data]\n{data}\n{parts}".replace("pictures.npz", "p"))
    done = within("train", recipe, "-o", tmp_path / "run", "-q")
    assert done.returncode == 0, done.stderr
