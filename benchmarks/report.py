"""What the benchmark scripts share: machine, versions, a Markdown table, and the JSON line at the end.

Not here: any measurement.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bertsmith.runtime import machine, versions


def finish(name: str, rows: Sequence[dict[str, Any]], *, more_versions: dict[str, str] | None = None) -> None:
    """Print the rows as a table and, last, as one JSON line. `ratio` above 1 means that we are better."""
    print(table(rows))
    found = versions() | (more_versions or {})
    print(json.dumps({"benchmark": name, "machine": machine(), "versions": found, "rows": list(rows)}))


def row(
    case: str, peer: str, ours: float, theirs: float, unit: str, *, lower_is_better: bool = False
) -> dict[str, Any]:
    """One comparison; beside a side that scored nothing there is no ratio."""
    above, below = (theirs, ours) if lower_is_better else (ours, theirs)
    ratio = above / below if below else None
    return {"case": case, "peer": peer, "ours_value": ours, "peer_value": theirs, "ratio": ratio, "unit": unit}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown, with the keys of the first as head."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head)]
    lines += [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in line.values()] for line in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
