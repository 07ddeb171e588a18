"""CIFAR's binary version: records of both kinds, names of classes, damaged files, and the version that is pickles."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtool.api import DataSpec, Field
from vqtool.errors import VqtoolError
from vqtool_images.cifar import cifar_file
from vqtool_images.data.images import Images
from vqtool_images.data.labelled_images import LabelledImages
from vqtool_images.user_file import PictureFiles

ROWS = 12


def records(labels: int, seed: int = 0, rows: int = ROWS) -> np.ndarray:
    """Label bytes, then red, green and blue, row after row: the last label is the fine one, 0 to 3."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (rows, labels + 3072), dtype=np.uint8)
    made[:, labels - 1] = np.arange(rows) % 4
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2):
        records(1, number).tofile(tmp_path / f"data_batch_{number}.bin")
    records(1, 3).tofile(tmp_path / "test_batch.bin")
    (tmp_path / "batches.meta.txt").write_text("plane\ncar\nbird\ncat\n\n")
    return tmp_path


def test_all_batches_in_order(folder: Path) -> None:
    data = LabelledImages(path=folder)
    assert data.spec.fields["label"].names == ("plane", "car", "bird", "cat")
    assert data.spec.signal.shape == (3, 32, 32)
    assert sum(len(data.rows(part)) for part in ("train", "valid")) == 2 * ROWS
    test = data.rows("test").__getitems__(list(range(ROWS)))
    raw = records(1, 3)
    assert test["label"].tolist() == raw[:, 0].tolist()
    wanted = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32)).float() / 255
    torch.testing.assert_close(test["x"], wanted, atol=0, rtol=0)


def test_the_folder_that_the_archive_unpacks_to(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outer = tmp_path_factory.mktemp("outer")
    folder.rename(outer / "cifar-10-batches-bin")
    assert len(LabelledImages(path=outer).rows("test")) == ROWS
    folder.mkdir()  # pytest removes it


def test_fine_labels_of_the_hundred(tmp_path: Path) -> None:
    for part in ("train", "test"):
        records(2).tofile(tmp_path / f"{part}.bin")
    data = LabelledImages(path=tmp_path)
    assert data.rows("test").__getitems__([0, 1, 2])["label"].tolist() == [0, 1, 2]
    assert len(Images(path=tmp_path).rows("test")) == ROWS  # without labels


def test_a_part_that_is_missing_or_damaged(folder: Path) -> None:
    with (folder / "data_batch_2.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(VqtoolError, match=r"data_batch_2.bin` is not a file of CIFAR's binary version"):
        LabelledImages(path=folder)
    (folder / "data_batch_2.bin").unlink()
    assert len(LabelledImages(path=folder).rows("train")) < ROWS
    (folder / "test_batch.bin").unlink()
    with pytest.raises(VqtoolError, match=r"has no `test_batch.bin or test.bin`"):
        LabelledImages(path=folder)


def test_pickles_are_named_and_not_read(tmp_path: Path) -> None:
    for name in ("data_batch_1", "batches.meta"):
        (tmp_path / name).write_bytes(pickle.dumps({}))
    with pytest.raises(VqtoolError, match="Python pickles, which vqtool never reads") as caught:
        LabelledImages(path=tmp_path)
    assert "binary version" in str(caught.value.hint)


def test_a_file_of_one_s_own(folder: Path, tmp_path: Path) -> None:
    spec = DataSpec({"x": Field((3, 32, 32), "signal")})
    (piece,) = PictureFiles(spec).open(folder / "test_batch.bin")
    torch.testing.assert_close(
        piece.batch["x"] * 255, torch.from_numpy(cifar_file(folder / "test_batch.bin")[0]).float()
    )


def test_an_idx_file_of_one_s_own(tmp_path: Path) -> None:
    images = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes() + images.tobytes())
    (piece,) = PictureFiles(DataSpec({"x": Field((1, 8, 8), "signal")})).open(path)
    assert (piece.batch["x"][:, 0] * 255).round().byte().tolist() == images.tolist()


def test_arrays_become_grey_for_a_model_of_grey_pictures(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "colours.npy", colours)
    files = PictureFiles(DataSpec({"x": Field((1, 8, 8), "signal")}))
    (piece,) = files.open(tmp_path / "colours.npy")
    wanted = torch.from_numpy(colours @ np.array([0.299, 0.587, 0.114])).float()
    torch.testing.assert_close(piece.batch["x"][:, 0] * 255, wanted, atol=0.51, rtol=0)
    assert "5 pictures read as grey" in files.remarks()
    np.save(tmp_path / "large.npy", colours[:, :, :, 0].repeat(2, 1).repeat(2, 2))
    with pytest.raises(VqtoolError, match=r"shape \(1, 16, 16\)") as caught:
        list(files.open(tmp_path / "large.npy"))
    assert "picture files, not arrays" in str(caught.value.hint)
