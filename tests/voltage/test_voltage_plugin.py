"""What the package offers, and that asking for it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

from vqtool_voltage import vqtool_components


def test_every_component_is_found_by_its_file():
    found = {(part.role, part.name) for part in vqtool_components()}
    assert found >= {
        ("data", "magnet"),
        ("loss", "faraday"),
        ("metric", "faraday-residual"),
        ("metric", "energy"),
        ("baseline", "faraday-law"),
        ("baseline", "impedance"),
        ("baseline", "ridge"),
    }
    assert all(part.summary for part in vqtool_components())


def test_declaring_components_imports_neither_torch_nor_numpy():
    code = (
        "import sys, vqtool_voltage; vqtool_voltage.vqtool_components();"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
