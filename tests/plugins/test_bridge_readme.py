"""The bridge's README names kinds and laws that there are; its table is held to `verify` by the bridge's tests."""

from __future__ import annotations

import re

from tests.plugins.conftest import ROOT
from vqtool.catalog.plugin_file import import_file
from vqtool.conformance import QUANTIZER_LAWS

BRIDGE = ROOT / "plugins" / "bridge"


def test_every_kind_has_a_row_and_every_law_exists() -> None:
    rows = dict(re.findall(r"^\| `(vqp-[a-z-]+)` \| \d+ \| \d+ \| (.*) \|$", (BRIDGE / "README.md").read_text(), re.M))
    module = import_file(BRIDGE / "vqtool_bridge" / "__init__.py")
    assert rows.keys() == module.KINDS.keys()
    laws = {law.id for law in QUANTIZER_LAWS}
    for named in rows.values():
        assert set(re.findall(r"`([a-z-]+)`", named)) <= laws
