"""Did you mean."""

from vqtool.suggest import did_you_mean, listed, nearest

NAMES = ["residual-ema", "ema", "product-ema", "fsq"]


def test_nearest() -> None:
    assert nearest("residual_ema", NAMES) == "residual-ema"
    assert nearest("Residual-EMA", NAMES) == "residual-ema"
    assert nearest("resid", NAMES) == "residual-ema"
    assert nearest("transformer", NAMES) is None


def test_did_you_mean_falls_back() -> None:
    assert did_you_mean("fsk", NAMES) == "did you mean `fsq`?"
    assert did_you_mean("zzz", NAMES, otherwise="look") == "look"


def test_listed() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "`a`"
    assert listed(["a", "b", "c"]) == "`a`, `b` and `c`"
