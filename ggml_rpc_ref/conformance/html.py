"""The report of one or several runs as a page: one file without anything from elsewhere, from the JSON of each run.

The only place where jinja2 is imported; the extra `html` brings it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ggml_rpc_ref.conformance.verdict import NO_FAULT, SEVERITY, Verdict
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.rules import RULES, Rule

Run = Mapping[str, Any]
"""A run as `report.as_json` returns it."""


@dataclass(slots=True)
class Row:
    """One case in all runs.

    Attributes:
        id: the case's.
        what: its sentence.
        results: in the order of the runs; None where a run had no such case.
    """

    id: str
    what: str
    results: list[Mapping[str, Any] | None]

    @property
    def worst(self) -> str:
        """The worst verdict of all runs."""
        return _worst([row["verdict"] for row in self.results if row])


@dataclass(slots=True)
class Part:
    """One rule with its cases; `cells`: for each run the worst verdict of those judged, how many passed, how many were judged."""

    rule: Rule
    rows: list[Row] = field(default_factory=list)
    cells: list[tuple[str, int, int]] = field(default_factory=list)


def render(runs: Sequence[Run]) -> str:
    """Return the page.

    Raises:
        Misuse: where jinja2 is not installed.
        KeyError: where a run lacks something, or another of `errors.NOT_OF_ITS_FORM` where it is otherwise none.
    """
    try:
        import jinja2
    except ImportError:
        raise Misuse("a page needs jinja2: pip install 'ggml-rpc-ref[html]'") from None
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("ggml_rpc_ref.conformance").joinpath("report.html.j2").read_text(encoding="utf-8")
    faults = [verdict.value for verdict in SEVERITY if verdict not in NO_FAULT]
    parts = list(_parts(runs))
    found = {"runs": runs, "parts": parts, "verdicts": _verdicts(parts), "faults": faults, "abilities": list(_abilities(runs))}
    try:
        return environment.from_string(source).render(found)
    except jinja2.UndefinedError as lacking:
        raise KeyError(str(lacking)) from None


def _verdicts(parts: Sequence[Part]) -> dict[str, int]:
    """Return the verdicts that there are, the mildest first, and how many cases have each in some run."""
    found = [{result["verdict"] for result in row.results if result} for part in parts for row in part.rows]
    counts = {verdict.value: sum(verdict in verdicts for verdicts in found) for verdict in SEVERITY}
    return {verdict: count for verdict, count in counts.items() if count}


def _parts(runs: Sequence[Run]) -> Iterator[Part]:
    rows: dict[str, Row] = {}
    rules: dict[str, str] = {}
    for number, run in enumerate(runs):
        for result in run["cases"]:
            row = rows.setdefault(result["id"], Row(result["id"], result.get("what", ""), [None] * len(runs)))
            row.results[number] = result
            rules[result["id"]] = result["rule"]
    for id, rule in RULES.items():
        part = Part(rule, [row for row in rows.values() if rules[row.id] == id])
        part.cells = [_cell([row.results[number] for row in part.rows]) for number in range(len(runs))]
        if part.rows:
            yield part


def _cell(results: Sequence[Mapping[str, Any] | None]) -> tuple[str, int, int]:
    verdicts = [row["verdict"] for row in results if row]
    judged = [verdict for verdict in verdicts if verdict not in (Verdict.SKIP, Verdict.UNSUPPORTED)]
    return _worst(judged or verdicts), judged.count("PASS"), len(judged)


def _worst(verdicts: Sequence[str]) -> str:
    return max(verdicts, key=lambda verdict: SEVERITY.index(Verdict(verdict)), default="")


def _abilities(runs: Sequence[Run]) -> Iterator[tuple[str, list[str]]]:
    """Yield a row for each thing that was looked at, with what each server does."""
    found = [run.get("diagnosis") or {} for run in runs]
    for what in ("commands", "types", "ops"):
        names = dict.fromkeys(name for row in found for name in row.get(what, {}))
        yield what, [_summary(row.get(what)) for row in found]
        for name in names:
            states = [row.get(what, {}).get(name) for row in found]
            if any(state is not None and state["state"] != "works" for state in states):
                yield name, [f"{state['state']}: {state['said']}".removesuffix(": ") if state else "not tried" for state in states]
    for key, words in (("several_clients", "several clients"), ("keeps_cache", "cache")):
        yield words, [{None: "not known", True: "yes", False: "no"}[row.get(key)] for row in found]


def _summary(rows: Mapping[str, Any] | None) -> str:
    if not rows:
        return "not tried"
    return f"{sum(it['state'] == 'works' for it in rows.values())} of {len(rows)}"
