"""The units that a user's file may have, and how they are written."""

from __future__ import annotations

UNITS: dict[str, dict[str, float]] = {
    "v": {"V": 1.0, "mV": 1e-3, "kV": 1e3},
    "i_p": {"A": 1.0, "mA": 1e-3, "uA": 1e-6, "kA": 1e3},
    "freq_hz": {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6},
    "temp_c": {"C": 1.0, "K": 1.0},
    "dt": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "sample_rate": {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6},
}
SPELLINGS = {unit.lower(): unit for units in UNITS.values() for unit in units} | {
    "volt": "V", "volts": "V", "amp": "A", "amps": "A", "ampere": "A", "amperes": "A", "µa": "uA", "hertz": "Hz",
    "second": "s", "seconds": "s", "µs": "us", "μs": "us", "°c": "C", "degc": "C", "kelvin": "K",
}  # fmt: skip


def unit_of(text: str) -> str:
    """The unit that a word such as `mA`, `volt` or `µs` means, as `UNITS` has it; "" where it is none."""
    return SPELLINGS.get(text.strip().lower(), "")
