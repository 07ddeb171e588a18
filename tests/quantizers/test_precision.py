"""Products of a search keep all of float32, whatever the user's model is allowed to round."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from vqtool.quantizers import VQ, Residual
from vqtool.quantizers.core import codebook


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


def allow_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def high() -> None:
    torch.set_float32_matmul_precision("high")


def medium() -> None:
    torch.set_float32_matmul_precision("medium")


def by_backend() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


SETTINGS = [allow_tf32, high, medium, by_backend]


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="PyTorch 2.9 and later show each setting")
@pytest.mark.parametrize("allow", SETTINGS)
def test_the_search_does_not_round(allow: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from inside of the search: not every processor rounds where it may."""
    seen, nearest = [], codebook.nearest

    def watched(*given: torch.Tensor) -> object:
        seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        return nearest(*given)

    monkeypatch.setattr(codebook, "nearest", watched)
    allow()
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
    quantizer = Residual(8, of=partial(VQ, codebook_size=16), levels=2)
    quantizer(torch.randn(4, 50, 8))
    quantizer.eval()(torch.randn(4, 50, 8))
    assert set(seen) == {"ieee"}
    after = torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
    assert all(a == b for a, b in zip(after, before, strict=True) if b in ("tf32", "bf16"))


def test_codes_do_not_depend_on_what_is_allowed() -> None:
    torch.manual_seed(0)
    quantizer, x = VQ(64, codebook_size=1024), torch.randn(4, 2000, 64)
    quantizer(x)
    quantizer.eval()
    wanted = quantizer(x).codes
    for precision in ("high", "medium"):
        torch.set_float32_matmul_precision(precision)
        assert torch.equal(quantizer(x).codes, wanted)
        assert torch.get_float32_matmul_precision() == precision


def test_an_error_leaves_the_setting_as_it_was() -> None:
    torch.set_float32_matmul_precision("medium")
    with pytest.raises(Exception, match="started"):
        VQ(8, codebook_size=16).eval()(torch.randn(2, 5, 8))
    assert torch.get_float32_matmul_precision() == "medium"


def test_a_compiled_search_warns() -> None:
    quantizer = VQ(8, codebook_size=16)
    quantizer(torch.randn(2, 50, 8))
    quantizer.eval()

    def compiled() -> None:
        torch._dynamo.reset()
        torch.compile(quantizer, fullgraph=True, backend="eager")(torch.randn(2, 50, 8))

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compiled()
    torch.set_float32_matmul_precision("high")
    with pytest.warns(UserWarning, match="near ties may get another code"):
        compiled()
