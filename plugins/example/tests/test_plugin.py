"""The quantizer keeps every law, and the parts train."""

import pytest
import torch

from vqtool.conformance import QUANTIZER_LAWS, Subject, require
from vqtool_example.grid import Grid
from vqtool_example.slope import Slope


@pytest.mark.parametrize("law", QUANTIZER_LAWS, ids=lambda law: law.id)
def test_law(law):
    require(law, Subject(Grid))


def test_slope():
    x = torch.randn(2, 1, 8)
    assert Slope(None)(x_hat=x + 3, target=x) < 1e-12 < Slope(None)(x_hat=2 * x, target=x)
