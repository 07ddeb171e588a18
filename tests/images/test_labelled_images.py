"""Pictures from IDX files and archives: the same rows either way, and damaged files are one clear error."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.semcom.conftest import columns
from vqtool.errors import VqtoolError
from vqtool_images.data.labelled_images import LabelledImages
from vqtool_images.idx import NAMES

SAMPLE = Path(__file__).parents[2] / "recipes" / "data" / "fashion_mnist_13k.npz"


def idx(array: np.ndarray) -> bytes:
    """The IDX format: magic, axes, lengths, bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for key, name in NAMES.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(columns()[key])))
    return tmp_path


def test_a_folder_and_an_archive_hold_the_same_rows(folder: Path, pictures: Callable[..., Path]) -> None:
    one, other = LabelledImages(path=folder), LabelledImages(path=pictures())
    assert one.spec == other.spec
    assert one.spec.extent == (8, 8)
    for split, count in (("train", 144), ("valid", 16), ("test", 40)):
        rows = one.rows(split)
        assert len(rows) == len(other.rows(split)) == count
        batch = rows.__getitems__(list(range(count)))
        assert torch.equal(batch["x"], other.rows(split).__getitems__(list(range(count)))["x"])
        assert 0 <= float(batch["x"].min()) < float(batch["x"].max()) <= 1
        assert torch.equal(rows[3]["x"], batch["x"][3])


def test_plain_idx_files_are_read_too(folder: Path) -> None:
    for name in NAMES.values():
        packed = folder / f"{name}.gz"
        (folder / name).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert len(LabelledImages(path=folder).rows("test")) == 40


def test_validation_rows_are_of_the_training_part_and_in_no_other(pictures: Callable[..., Path]) -> None:
    data = LabelledImages(path=pictures())
    every = [data.rows(s).__getitems__(list(range(len(data.rows(s)))))["x"] for s in ("train", "valid", "test")]
    train, valid, test = ({picture.numpy().tobytes() for picture in part} for part in every)
    assert not train & valid
    assert not (train | valid) & test
    assert len(train | valid) == 160


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_labels": None}, "train_labels"),
        ({"train_labels": np.zeros(3, dtype=np.uint8)}, "labels of the shape"),
        ({"train_images": np.zeros((160, 8, 8))}, "uint8"),
        ({"test_images": np.zeros((40, 9, 9), dtype=np.uint8)}, "differ in size"),
        ({"classes": np.array(["a"])}, "names"),
        ({"test_labels": np.full(40, -1)}, "negative"),
    ],
)
def test_what_does_not_fit_is_one_error(pictures: Callable[..., Path], change: dict, said: str) -> None:
    with pytest.raises(VqtoolError, match=said):
        LabelledImages(path=pictures(**change))


def test_damaged_files_are_one_error(folder: Path, tmp_path: Path) -> None:
    whole = folder / "train-images-idx3-ubyte.gz"
    packed = whole.read_bytes()
    for broken in (packed[:100], b"no gzip", gzip.compress(b"\0\0\x09\1"), gzip.compress(gzip.decompress(packed)[:-5])):
        whole.write_bytes(broken)
        with pytest.raises(VqtoolError):
            LabelledImages(path=folder)
    whole.unlink()
    with pytest.raises(VqtoolError, match="train-images"):
        LabelledImages(path=folder)
    with pytest.raises(VqtoolError, match="no file or folder"):
        LabelledImages(path=tmp_path / "nothing.npz")


def test_mirrored_and_moved_pictures(pictures: Callable[..., Path]) -> None:
    data = LabelledImages(path=pictures(), flip=0.5, shift=1)
    batch = data.rows("train").__getitems__(list(range(60)))
    varied = data.augment(batch, torch.Generator().manual_seed(0))["x"]
    again = data.augment(batch, torch.Generator().manual_seed(0))["x"]
    assert torch.equal(varied, again)
    assert varied.shape == batch["x"].shape
    padded = torch.nn.functional.pad(batch["x"], (1, 1, 1, 1))
    for row in range(60):
        whole = torch.stack([padded[row], padded[row].flip(-1)])
        near = [whole[f, :, i : i + 8, j : j + 8] for f in range(2) for i in range(3) for j in range(3)]
        assert any(torch.equal(varied[row], one) for one in near)
    assert not torch.equal(varied, batch["x"])


def test_the_sample_beside_the_recipe() -> None:
    data = LabelledImages(path=SAMPLE)
    assert [len(data.rows(split)) for split in data.splits] == [9450, 1050, 2500]
    assert data.spec.fields["label"].names[1] == "trouser"
    label = data.rows("test").__getitems__(list(range(2500)))["label"]
    assert label.bincount().tolist() == [250] * 10


def test_a_header_that_promises_more_than_the_file_can_hold(folder: Path) -> None:
    whole = folder / "train-images-idx3-ubyte.gz"
    plain = folder / "train-images-idx3-ubyte"
    header = bytes([0, 0, 8, 3]) + np.array([2**31, 2**15, 2**15], ">u4").tobytes()
    whole.write_bytes(gzip.compress(header + bytes(1000)))
    with pytest.raises(VqtoolError, match="does not hold the 2305843009213693952 bytes of its header"):
        LabelledImages(path=folder)
    plain.write_bytes(idx(columns()["train_images"]))
    whole.write_bytes(
        gzip.compress(plain.read_bytes()) + gzip.compress(bytes(2**24)) * 8
    )  # more follows than the header says
    with pytest.raises(VqtoolError, match="does not hold the 10240 bytes"):
        LabelledImages(path=folder)
