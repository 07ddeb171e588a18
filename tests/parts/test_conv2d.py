"""Image encoders and decoders: a token for each cell or tokens of the whole image, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from vqtool.api import UnfitError
from vqtool.catalog import catalog
from vqtool.errors import VqtoolError
from vqtool.parts.decoders.conv2d import Conv2dDecoder
from vqtool.parts.encoders.conv2d import Conv2dEncoder


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize(("extent", "grid"), [((8, 8), True), ((8, 16), True), ((8, 8), False), ((10, 6), False)])
def test_images_to_tokens_and_back(extent: tuple[int, int], grid: bool, norm: str) -> None:
    how = {"widths": (4, 6), "grid": grid, "norm": norm}
    encoder = Conv2dEncoder(3, extent, dim=5, tokens=4, **how)
    x = torch.randn(2, 3, *extent)
    z = encoder(x)
    assert z.shape == (2, extent[0] * extent[1] // encoder.stride, 5)
    assert z.shape[1] == (extent[0] * extent[1] // 16 if grid else 4)
    decoder = Conv2dDecoder(5, 3, extent, encoder.stride, **how)
    assert decoder(z).shape == x.shape


def test_a_cell_of_the_grid_is_where_its_token_is() -> None:
    torch.manual_seed(0)
    encoder = Conv2dEncoder(1, (32, 32), dim=3, widths=(4, 4), grid=True, blocks=0, norm="none")
    x = torch.rand(1, 1, 32, 32)
    changed = x.clone()
    changed[..., 8:12, 20:24] += 1  # the cell in row 2 and column 5 of 8
    differs = (encoder(x) != encoder(changed)).any(-1)[0].nonzero().flatten().tolist()
    assert 2 * 8 + 5 in differs
    assert all(abs(token // 8 - 2) <= 1 and abs(token % 8 - 5) <= 1 for token in differs)
    decoder = Conv2dDecoder(3, 1, (32, 32), 16, widths=(4, 4), grid=True, blocks=0, norm="none")
    z = torch.randn(1, 64, 3)
    moved = z.clone()
    moved[:, 2 * 8 + 5] += 1
    rows, columns = (decoder(z) != decoder(moved))[0, 0].nonzero().T
    assert 2 * 4 - 4 <= int(rows.min()) <= int(rows.max()) < 3 * 4 + 4
    assert 5 * 4 - 4 <= int(columns.min()) <= int(columns.max()) < 6 * 4 + 4


def test_every_token_without_a_grid_sees_the_whole_image() -> None:
    encoder = Conv2dEncoder(1, (8, 8), dim=3, tokens=4, widths=(4,)).eval()
    x = torch.rand(1, 1, 8, 8)
    changed = x.clone()
    changed[..., 0, 0] += 5
    assert (encoder(x) != encoder(changed)).any(-1).all()


def test_a_grid_needs_whole_cells_and_the_same_on_both_sides() -> None:
    with pytest.raises(VqtoolError, match="30 x 28 are not whole cells of 4 x 4 pixels") as caught:
        Conv2dEncoder(1, (30, 28), widths=(4, 4), grid=True)
    assert caught.value.hint is not None
    assert "32 x 28" in caught.value.hint
    with pytest.raises(VqtoolError, match="gives 4 tokens, and 2 doublings need a grid of 49"):
        Conv2dDecoder(3, 1, (28, 28), 196, widths=(4, 4), grid=True)


WINDOWS = [("encoder", "conv1d"), ("encoder", "filterbank"), ("encoder", "identity"), ("encoder", "lapped"),
           ("encoder", "patch"), ("encoder", "resnet1d"), ("decoder", "conv1d"), ("decoder", "identity"),
           ("decoder", "lapped"), ("decoder", "patch"), ("decoder", "resnet1d")]  # fmt: skip


@pytest.mark.parametrize(("role", "kind"), WINDOWS)
def test_parts_for_windows_say_that_images_do_not_fit(role: str, kind: str) -> None:
    wiring = (1, (28, 28), 0) if role == "encoder" else (8, 1, (28, 28), 16, 0)
    with pytest.raises(UnfitError, match=f"the {role} `{kind}` is for windows") as caught:
        catalog().make(role, kind, {}, *wiring)
    assert caught.value.hint == "conv2d is for images"


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_parts_for_images_say_that_windows_do_not_fit(role: str) -> None:
    wiring = (1, 28, 0) if role == "encoder" else (8, 1, 28, 4, 0)
    with pytest.raises(UnfitError, match=f"the {role} `conv2d` needs images"):
        catalog().make(role, "conv2d", {}, *wiring)
