"""The interop matrix as a picture: servers, then clients, down; sections of the rules and versions of clients across."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import PROFILES

ROW, NAME, CELL, CLIENT, HEAD, EDGE = 24, 190, 66, 40, 64, 12
"""Pixels: height of a row; widths of names, of cells and of clients' cells; height of the head; margin."""
SECTIONS = tuple(dict.fromkeys(id.partition(".")[0] for id in RULES))
STYLE = """
:root { color-scheme: light dark; } text { font: 12px system-ui, sans-serif; fill: #1b1f24; } .soft { fill: #59636e; }
.number { text-anchor: middle; font-size: 11px; } .head { font-weight: 600; } .ground { fill: #ffffff; }
.all { fill: #d2f0d9; } .most { fill: #fff1c2; } .few { fill: #ffd7d5; } .none { fill: #eceff2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .soft { fill: #9198a1; } .ground { fill: #0d1117; }
  .all { fill: #12401f; } .most { fill: #4a3a06; } .few { fill: #5c1a1e; } .none { fill: #21262d; }
}
"""
SIGNS = {"works": ("✓", "all"), "refused": ("–", "none"), "closed": ("–", "none"), "broken": ("✗", "few")}
"""Outcome of a pair to its sign and colour: a version that is refused is not a fault."""
MOST = 0.95
"""Of a section's cases; from so many on that pass the cell is not red."""


def picture(matrix: Mapping[str, Any]) -> str:
    """Return the SVG of a matrix as `conformance.interop.matrix` returns it."""
    servers, clients = matrix["servers"], matrix["clients"]
    sections = [name for name in SECTIONS if any(name in row["sections"] for row in (*servers, *clients))]
    width = 2 * EDGE + NAME + CELL * (len(sections) + 1) + EDGE + CLIENT * len(PROFILES)
    below = 2 * EDGE + HEAD + ROW * len(servers)  # where the clients begin
    height = below + EDGE + (HEAD + ROW * len(clients) if clients else 0)
    title = "Servers and clients judged by the conformance suite, and how clients of each version get on with servers"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{title}, {matrix['started'][:10]}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
        *_head("Servers: cases that pass, of those that could be judged", sections, EDGE),
        *_versions(sections),
        *(line for number, row in enumerate(servers) for line in _server(matrix, row, sections, EDGE + HEAD + ROW * number)),
        *(_head("Clients: the same, by the rules that bind clients", sections, below) if clients else ()),
        *(line for number, row in enumerate(clients) for line in _shares(row, sections, below + HEAD + ROW * number)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _head(words: str, sections: list[str], y: int) -> Iterator[str]:
    yield f'<text class="head" x="{EDGE}" y="{y + 14}">{words}</text>'
    for column, name in enumerate((*sections, "all")):
        yield _text(EDGE + NAME + CELL * column + CELL / 2, y + HEAD - 10, name, "number soft")


def _versions(sections: list[str]) -> Iterator[str]:
    """Yield the head of the part that shows how clients of each version get on with the servers."""
    start = _start(sections)
    yield f'<text class="head" x="{start}" y="{EDGE + 14}">Clients of each version: ✓ works, ✗ breaks, – refused</text>'
    for column, version in enumerate(PROFILES):
        yield _text(start + CLIENT * column + CLIENT / 2, EDGE + HEAD - 10, str(version), "number soft")


def _start(sections: list[str]) -> int:
    return EDGE + NAME + CELL * (len(sections) + 1) + EDGE


def _server(matrix: Mapping[str, Any], row: Mapping[str, Any], sections: list[str], y: int) -> Iterator[str]:
    yield from _shares(row, sections, y)
    for column, version in enumerate(() if row["error"] else PROFILES):
        outcomes = [pair["outcome"] for pair in matrix["pairs"] if _is_of(pair, row) and pair["client"] == str(version)]
        # several clients of one version: ours and genuine ones
        worst = max(outcomes, key=list(SIGNS).index, default="")
        yield from _cell(_start(sections) + CLIENT * column, y, CLIENT, *SIGNS.get(worst, ("", "none")))


def _shares(row: Mapping[str, Any], sections: list[str], y: int) -> Iterator[str]:
    """Yield the name of a server or client and how many cases of each section pass, or why it was not judged."""
    yield f'<text x="{EDGE}" y="{y + 16}">{escape(row["name"])}</text>'
    if row["error"]:
        yield f'<text class="soft" x="{EDGE + NAME}" y="{y + 16}">{escape(row["error"][:90])}</text>'
        return
    everything = [sum(share[part] for share in row["sections"].values()) for part in (0, 1)]
    for column, (passed, judged) in enumerate([*(row["sections"].get(name, (0, 0)) for name in sections), everything]):
        colour = "none" if not judged else "all" if passed == judged else "most" if passed >= MOST * judged else "few"
        yield from _cell(EDGE + NAME + CELL * column, y, CELL, f"{passed}/{judged}" if judged else "", colour)


def _is_of(pair: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return bool(pair["server"] == row["whose"] and pair["speaks"] == row["protocol"])


def _cell(x: float, y: float, width: float, words: str, colour: str) -> Iterator[str]:
    yield f'<rect class="{colour}" x="{x + 1}" y="{y + 1}" width="{width - 2}" height="{ROW - 2}" rx="3"/>'
    yield _text(x + width / 2, y + 16, words, "number")


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'
