"""What can be wrong between a decoder and its discriminator, on rows made by hand."""

from __future__ import annotations

import pytest

from tests.diagnosis.reports import findings, report, text, with_history

STAGE = text(losses="mse = 1.0, hinge = 2.0, feature-matching = 1.0", more='[discriminator]\nkind = "multi-period"\n')
WITHOUT = text(losses="mse = 1.0, hinge = 2.0", more='[discriminator]\nkind = "multi-period"\n')


def test_a_discriminator_that_is_always_right() -> None:
    wins = {"discriminator.accuracy": [0.5, 0.9, 0.99, 1.0, 0.98]}
    one = findings(with_history(report(recipe=STAGE), **wins))["discriminator-wins"]
    assert (one.severity, one.figure, one.where) == ("warn", 0.98, "tokenizer")
    assert "stage.tokenizer.discriminator.lr=0.00033" in one.fix[0]
    one = findings(with_history(report(recipe=WITHOUT), **wins))["discriminator-wins"]
    assert "stage.tokenizer.losses.feature-matching=1" in one.fix[0]
    once = {"discriminator.accuracy": [0.5, 0.9, 0.99, 1.0, 0.7]}
    assert findings(with_history(report(recipe=STAGE), **once)) == {}


def test_features_that_never_change_what_they_say() -> None:
    both = {"discriminator.accuracy": [0.7] * 12}
    flat = {"feature-matching": [0.5 + 0.002 * (i % 2) for i in range(12)], **both}
    assert (
        findings(with_history(report(recipe=STAGE), split="train", **flat))["feature-matching-flat"].severity == "warn"
    )
    falls = {"feature-matching": [0.5 - 0.01 * i for i in range(12)], **both}
    assert findings(with_history(report(recipe=STAGE), split="train", **falls)) == {}


def test_losses_that_drown_the_others() -> None:
    both = {"discriminator.accuracy": [0.7] * 6, "adversarial.ratio": [1.0, 2.0, 19.0, 20.0, 20.0, 20.0]}
    one = findings(with_history(report(recipe=STAGE), split="train", **both))["loss-ratio"]
    assert (one.severity, one.figure) == ("warn", pytest.approx(20))
    assert "stage.tokenizer.losses.hinge=0.1" in one.fix[0]
    apart = STAGE + "discriminator = { balance = false }\n"
    one = findings(with_history(report(recipe=apart), split="train", **both))["loss-ratio"]
    assert "stage.tokenizer.discriminator.balance=true" in one.fix[0]
