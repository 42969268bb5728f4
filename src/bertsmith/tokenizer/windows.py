"""Settings of overlapping windows over a text that is too long: which there are, and which cannot work.

Not here: the cutting, which is tokenizers' truncation with overflow (`TextTokenizer.windows`).

    question who? · text one two three four · max_length 7 · stride 1 · truncation only_second
    [CLS] who ? [SEP] one two [SEP]
    [CLS] who ? [SEP] two three [SEP]
    [CLS] who ? [SEP] three four [SEP]
"""

from __future__ import annotations

from typing import Literal, get_args

from bertsmith.errors import InputError

Truncation = Literal["longest_first", "only_first", "only_second"]
"""Which text is cut: the longer of the two, and both once they are equal; or always the same one."""


def check_windows(
    lengths: tuple[int, int | None],
    special: int,
    *,
    max_length: int,
    stride: int,
    truncation: Truncation,
) -> None:
    """Raise `InputError` unless every window moves on: each text that is cut keeps more than `stride` tokens.

    `lengths`: tokens of the text and of its pair, None without one. `special`: special tokens of a window.
    """
    if truncation not in get_args(Truncation):
        raise InputError(f"{truncation!r} is none of {', '.join(get_args(Truncation))}", field="truncation")
    if truncation == "only_second" and lengths[1] is None:
        raise InputError('there is no second text to cut; use "only_first"', field="truncation")
    if stride < 0:
        raise InputError(f"{stride} is negative; it is the number of tokens that two windows share", field="stride")
    room = max_length - special
    if room <= stride:
        raise InputError(
            f"{max_length} is too small for {special} special tokens and more than stride {stride} of the text; "
            f"use at least {special + stride + 1}, or a smaller stride",
            field="max_length",
        )
    first, second = lengths[0], lengths[1] or 0
    kept = kept_tokens(first, second, room=room, truncation=truncation)
    short = min((keep for keep, length in zip(kept, (first, second), strict=True) if keep < length), default=room)
    if short <= stride:
        raise InputError(
            f"{max_length} leaves {max(short, 0)} tokens for a text that is cut, and stride is {stride}; use a larger "
            "max_length, a smaller stride or a shorter other text",
            field="max_length",
        )


def kept_tokens(first: int, second: int, *, room: int, truncation: Truncation) -> tuple[int, int]:
    """How many tokens of each text a window holds, by the rules of tokenizers; 0 or less where none fit.

    `3, 9, room=8, "only_second" -> (3, 5)`; `9, 3, room=8, "longest_first" -> (5, 3)`; `9, 8, room=7 -> (4, 3)`
    """
    if first + second <= room:
        return first, second
    if truncation == "only_first":
        return room - second, second
    if truncation == "only_second":
        return first, room - first
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)
