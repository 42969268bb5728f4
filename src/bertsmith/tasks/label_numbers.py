"""`LABEL=NUMBER` for some labels, parted by commas, as a command line gives class weights and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from bertsmith.errors import InputError, listing, nearest


def label_numbers(
    text: str, labels: Sequence[str], *, field: str, default: float, most: float = float("inf")
) -> tuple[float, ...]:
    """`"a=2,b=0.5"` -> a number for each label, `default` where none is given; `"0.3"` -> the same for all.

    A label may hold commas and `=`: an entry ends where it is a known label and a number.
    """
    if _number(text) is not None:
        return (_in_range(text, text, field=field, most=most),) * len(labels)
    found: dict[str, float] = {}
    waiting = text.split(",")
    while waiting:
        entries = list(accumulate(waiting, "{},{}".format))
        size = next((i for i, entry in enumerate(entries, 1) if _is_known(entry, labels)), None)
        if size is None:
            raise InputError(
                _problem(next((entry for entry in entries if "=" in entry), entries[-1]), labels), field=field
            )
        entry, waiting = entries[size - 1], waiting[size:]
        name, _, value = entry.rpartition("=")
        if name.strip() in found:
            raise InputError(f"names {name.strip()!r} twice", field=field)
        found[name.strip()] = _in_range(value, entry, field=field, most=most)
    return tuple(found.get(label, default) for label in labels)


def _is_known(entry: str, labels: Sequence[str]) -> bool:
    name, _, value = entry.rpartition("=")
    return name.strip() in labels and _number(value) is not None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _in_range(value: str, entry: str, *, field: str, most: float) -> float:
    number = float(value)
    if not 0 < number <= most or number == float("inf"):
        limit = "" if most == float("inf") else f" and at most {most:g}"
        raise InputError(f"{entry!r}: expected a finite number above 0{limit}", field=field)
    return number


def _problem(entry: str, labels: Sequence[str]) -> str:
    """What is wrong with an entry that names no label, or no number."""
    name, _, value = entry.rpartition("=")
    name = name.strip()
    if not name or _number(value) is None:
        return f"{entry!r} is not LABEL=NUMBER, for example {labels[0]}=0.5"
    return f"no label {name!r}{nearest(name, labels)}; the labels are: {listing(labels)}"
