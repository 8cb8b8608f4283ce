"""How a number is written, wherever it is told: in verdicts, tables, pages and sentences."""

from __future__ import annotations

UNKNOWN = "-"
_VAST, _TINY = 1e15, 1e-6


def short(value: float, digits: int = 3) -> str:
    """A number with this many digits, whole ones in full; an exponent only from 10^15 on or below 10^-6."""
    text = f"{value:.{digits}g}"
    if abs(value) >= _VAST or "e" not in text or 0 < abs(value) < _TINY:
        return f"{value:,.0f}" if value.is_integer() and abs(value) < _VAST else text
    return f"{value:,.0f}" if value.is_integer() else _written_out(float(text))


def _written_out(value: float) -> str:
    """A rounded number without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1 else f"{value:.12f}".rstrip("0")


def rounded(value: float | None, digits: int = 3) -> str:
    """A number with this many digits at most; what is unknown as a dash."""
    return UNKNOWN if value is None else short(float(value), digits)
