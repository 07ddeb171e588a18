"""Pictures without labels: folders of any depth, arrays and IDX files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.images.conftest import columns
from vqtool.errors import VqtoolError
from vqtool_images.data.images import Images
from vqtool_images.data.labelled_images import LabelledImages


def write(folder: Path, count: int = 20) -> Path:
    (folder / "deep" / "er").mkdir(parents=True)
    for at, picture in enumerate(columns()["train_images"][:count]):
        Image.fromarray(picture).save((folder, folder / "deep" / "er")[at % 2] / f"{at}.png")
    return folder


def test_a_folder_of_any_depth_without_classes(tmp_path: Path) -> None:
    data = Images(path=write(tmp_path / "p"))
    assert [len(data.rows(split)) for split in data.splits] == [14, 2, 4]
    assert set(data.spec.fields) == {"x"}
    assert data.spec.signal.shape == (1, 8, 8)
    assert data.notes == ("there is no test part: 4 of 20 pictures, a fifth, are held out as `test`",)
    batch = data.rows("train").__getitems__([0, 1])
    assert set(batch) == {"x"}
    assert data.rows("train")[1]["x"].equal(batch["x"][1])


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    write(tmp_path / "p" / "train")
    write(tmp_path / "p" / "test", 5)
    data = Images(path=tmp_path / "p")
    assert [len(data.rows(split)) for split in data.splits] == [18, 2, 5]


def test_arrays_need_no_labels(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    images = columns()["train_images"]
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", anything=images)
    one, other = Images(path=tmp_path / "a.npy"), Images(path=tmp_path / "b.npz")
    assert torch.equal(one.rows("train").__getitems__([3])["x"], other.rows("train").__getitems__([3])["x"])
    labelled = LabelledImages(path=pictures())
    same = Images(path=pictures())
    assert torch.equal(labelled.rows("test").__getitems__([7])["x"], same.rows("test").__getitems__([7])["x"])


def test_what_is_no_picture_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(VqtoolError, match="there are no pictures in") as caught:
        Images(path=tmp_path / "p")
    assert ".png" in str(caught.value.hint)
    np.savez(tmp_path / "two.npz", one=np.zeros(3), two=np.zeros(4))
    with pytest.raises(VqtoolError, match="does not have `train_images`"):
        Images(path=tmp_path / "two.npz")
