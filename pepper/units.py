"""The conversions between units, in one place."""

NS_PER_MS = 1e6
_BYTE_MS = 0.008
"""How long a byte takes at one megabit (10^6) a second."""


def ms_per_byte(mbit_s: float | None) -> float:
    """Return how long a byte takes at a bandwidth; no time at one that is unlimited (None or infinite)."""
    return _BYTE_MS / mbit_s if mbit_s else 0.0


def mbit_s(ms_per_byte: float) -> float | None:
    """Return the bandwidth at which a byte takes so long; None, which is unlimited, if it takes no time."""
    return _BYTE_MS / ms_per_byte if ms_per_byte > 0 else None


def bandwidth_mbit_s(count: float, took_ms: float) -> float:
    """Return the bandwidth at which so many bytes take so long."""
    return _BYTE_MS * count / took_ms


def period_of_ms(rate_per_s: float) -> float:
    """Return how long something takes that happens so often a second."""
    return 1000 / rate_per_s


def per_second(period_ms: float) -> float:
    """Return how often a second something happens that takes so long."""
    return 1000 / period_ms
