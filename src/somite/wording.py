"""Numbers and counts as people read them."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def number(x: float | None, beside: float | None = None) -> str:
    """Three decimals, fewer for large numbers, significant digits for tiny ones; as many as the number it stands beside."""
    if x is None:
        return "-"
    like = abs(x if beside is None else beside)
    if 0 < like < 0.0005:
        return f"{x:.1e}"
    return f"{x:.0f}" if like >= 100 else f"{x:.1f}" if like >= 10 else f"{x:.3f}"


def interval(found: dict[str, Any]) -> str:
    """From where to where, or why there is none."""
    if found["low"] is None:
        return "no interval" if found.get("groups", 1) > 1 else "none: one group"
    low, high = (number(found[end], found["mean"]) for end in ("low", "high"))
    return f"{low} to {high}"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def size(n: int) -> str:
    """Bytes for people."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"


def duration(seconds: float) -> str:
    """About how long, for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def meant(word: str, known: Iterable[str]) -> str:
    """What a mistyped word was meant to be, to be appended to what is said of it; nothing where nothing is like it."""
    like = get_close_matches(word, list(known), n=1)
    return f": did you mean {like[0]}?" if like else ""
