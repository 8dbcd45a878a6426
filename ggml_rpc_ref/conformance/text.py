"""The report of a run as text for people: what the target does, what to mend first, each broken rule, what was not judged."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ggml_rpc_ref.conformance.diagnosis import Ability, Diagnosis, State
from ggml_rpc_ref.conformance.events import Report, Result
from ggml_rpc_ref.conformance.expect import Baseline, Expected, surprises
from ggml_rpc_ref.conformance.report import counts, level
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict
from ggml_rpc_ref.spec.rules import RULES, Rule

INDENT = " " * 14
"""Before lines that belong to a case."""
_ERROR = re.compile(r"error|exception|assert|fail|panic|abort|fatal|invalid|traceback", re.IGNORECASE)
SHOWN = 6
"""Names that a line lists before it says how many more there are."""


def as_text(report: Report, expected: Mapping[str, Expected] | None = None, summary: Iterable[str] = ()) -> Iterator[str]:
    """Yield lines: what the server does, then the verdicts."""
    if report.diagnosis is not None:
        yield from (*ability_lines(report), "")
    yield from verdict_lines(report, expected, summary)


# ------------------------------------------------------------------------------------------------- what the server does


def ability_lines(report: Report) -> Iterator[str]:
    """Yield the table of what the server does."""
    found, facts = report.diagnosis, report.facts
    assert found is not None
    assert facts is not None
    if report.party == "client":
        yield from _client_lines(report.target, found, str(facts.version))
        return
    yield f"what {report.target} does (looked at for {found.duration:.1f} s)"
    yield f"  protocol  {facts.spoken}, {facts.device_count} device{'s' * (facts.device_count != 1)}"
    if found.device:
        yield f"  device 0  {', '.join(_details(found.device))}"
    yield f"  commands  {_summary(found.commands, 'answered')}"
    if found.types:
        yield f"  types     {_summary(found.types, 'taken')}"
    if found.ops:
        yield f"  ops       {_summary(found.ops, 'graphs of one node computed')}"
    yield f"  clients   {_yes(found.several_clients, 'several at once', 'one at a time')}"
    yield f"  cache     {_yes(found.keeps_cache, 'keeps what it is sent', 'keeps nothing')}"


def _client_lines(name: str, found: Diagnosis, version: str) -> Iterator[str]:
    yield f"what {name} does (looked at for {found.duration:.1f} s)"
    yield f"  protocol  {version}"
    yield f"  commands  {_summary(found.commands, 'sent')}"
    if found.trouble:
        yield f"  trouble   {found.trouble}"


def _details(device: Mapping[str, int]) -> Iterator[str]:
    if "alignment" in device:
        yield f"alignment {device['alignment']}"
    if "max_size" in device:
        yield f"largest buffer {_size(device['max_size'])}"
    if "total_mem" in device:
        yield f"{_size(device['free_mem'])} of {_size(device['total_mem'])} free"


def _size(count: int) -> str:
    """Return bytes in the largest binary unit of which there are at least two."""
    if count >= 2**62:
        return f"2^{count.bit_length() - 1} bytes and more"
    for exponent, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 2 << exponent:
            return f"{count / (1 << exponent):.1f} {unit}"
    return f"{count} bytes"


def _summary(abilities: Mapping[str, Ability], done: str) -> str:
    working = sum(it.state is State.WORKS for it in abilities.values())
    groups: dict[str, list[str]] = defaultdict(list)
    for name, it in abilities.items():
        if it.state is not State.WORKS:
            groups[it.said].append(name)
    return "; ".join([f"{working} of {len(abilities)} {done}", *(f"{_few(names)}: {said}" for said, names in groups.items())])


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _yes(answer: bool | None, yes: str, no: str) -> str:
    return "not known" if answer is None else yes if answer else no


# ---------------------------------------------------------------------------------------------------------- the verdicts


def verdict_lines(
    report: Report, expected: Mapping[str, Expected] | None = None, summary: Iterable[str] = (), *, verbose: bool = False
) -> Iterator[str]:
    """Yield lines: each broken rule with its cases, what was not judged, common causes, what to mend first, and counts.

    With `verbose`, what was sent and received stands below each failure, and all that is kept of what the server printed.
    """
    for rule, results in _by_rule(report.results):
        yield f"{rule.id} ({rule.level}): {rule.sentence}"
        yield from _lines(results, expected or {}, verbose, report.party)
        yield ""
    for section in (_not_judged(report.results), _deaths(report.results), _causes(report.results), fix_first(report)):
        if lines := list(section):
            yield from (*lines, "")
    if expected is not None:
        yield from (f"unexpected: {sentence}" for sentence in surprises(report.results, expected, report.known))
        if isinstance(expected, Baseline):
            yield from (f"review: {sentence}" for sentence in expected.overdue(report.started.date()))
    yield from summary
    if report.is_interrupted:
        yield f"interrupted: {len(report.results)} of {report.planned} cases were judged"
    yield _total(report)


def _by_rule(results: Iterable[Result]) -> Iterator[tuple[Rule, list[Result]]]:
    shown = [result for result in results if result.verdict not in NO_FAULT]
    for id, rule in RULES.items():
        if mine := [result for result in shown if result.rule == id]:
            yield rule, mine


def _lines(results: Iterable[Result], expected: Mapping[str, Expected], verbose: bool, party: str) -> Iterator[str]:
    """Yield a line a case, and below an unexpected failure its doc and the last line that the target printed."""
    for result in results:
        detour = "" if result.rule == result.case.rule.id else " (met on the way)"
        known = " [expected]" if is_expected(result, expected) else ""
        flaky = f" in {result.failed} of {result.runs} runs" if result.runs > 1 else ""
        yield f"  {result.verdict:<11} {result.case.id}{detour}{flaky}: {result.detail}{known}"
        if not known:
            yield f"{INDENT}{result.case.doc}"
            if result.server_said and (verbose or not result.death):
                yield from (f"{INDENT}the {party} printed: {line.strip()}" for line in _telling(result.server_said, verbose))
            if verbose:
                yield from (f"{INDENT}{line}" for line in result.transcript)


def _telling(lines: Sequence[str], verbose: bool) -> Sequence[str]:
    """Return the lines that say most: all of them, or the last one that sounds like an error, or the last one."""
    if verbose:
        return lines
    return [line for line in lines if _ERROR.search(line)][-1:] or lines[-1:]


def is_expected(result: Result, expected: Mapping[str, Expected]) -> bool:
    """Whether a file of expected failures has this verdict of this case."""
    return result.case.id in expected and result.verdict in expected[result.case.id].verdicts


def _not_judged(results: Iterable[Result]) -> Iterator[str]:
    """Yield a line for each reason for which cases were not judged; what waits for a command is said with what to mend first."""
    reasons = _grouped(results, lambda r: r.verdict is not Verdict.PASS and r.verdict in NO_FAULT and not _waits(r), _reason)
    for reason, group in reasons.items():
        yield f"{group[0].verdict}: {reason}: {_cases(group)}"


def _reason(result: Result) -> str:
    return result.actual


def _waits(result: Result) -> bool:
    return bool(result.waits_for) and result.verdict is Verdict.SKIP


def _deaths(results: Iterable[Result]) -> Iterator[str]:
    """Yield a line for each way in which the server died."""
    for death, group in _grouped(results, lambda r: bool(r.death), lambda r: _without_numbers(r.death)).items():
        yield f"died: {death}: {_cases(group)}"


def _causes(results: Iterable[Result]) -> Iterator[str]:
    """Yield a line for each last line that the server printed at several failures without dying: one cause, most likely."""
    printed = _grouped(
        results,
        lambda r: not r.death and any(map(_ERROR.search, r.server_said)),
        lambda r: _without_numbers(_telling(r.server_said, False)[0].strip()),
    )
    for line, group in printed.items():
        if len(group) > 1:
            yield f"printed: {line}: {_cases(group)}"


def fix_first(report: Report) -> Iterator[str]:
    """Yield a line for each command that does not work, with the number of cases that wait for it, most of them first."""
    waiting = _grouped(report.results, _waits, lambda r: r.waits_for)
    for command, group in sorted(waiting.items(), key=lambda item: -len(item[1])):
        count = len(group)
        yield f"fix first: {_said_of(command, report)}; {count} case{'s wait' if count > 1 else ' waits'} for it"


def _said_of(command: str, report: Report) -> str:
    found = report.diagnosis
    if found is None:
        return f"{command} does not work"
    return f"{command} {found.commands[command].said}" if command in found.commands else found.trouble


def _grouped(results: Iterable[Result], chosen: Callable[[Result], bool], key: Callable[[Result], str]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if chosen(result):
            groups[key(result)].append(result)
    return groups


def _without_numbers(text: str) -> str:
    """Return a text in which addresses and numbers that differ from case to case are left out."""
    return re.sub(r"0x[0-9a-fA-F]+|\b\d{3,}\b", "…", text)


def _cases(group: list[Result]) -> str:
    if len(group) == 1:
        return group[0].case.id
    return f"{len(group)} cases, the first {group[0].case.id}"


def _total(report: Report) -> str:
    found = ", ".join(f"{number} {verdict}" for verdict, number in counts(report.results).items())
    should = sum(level(r) != "MUST" for r in report.results if r.verdict not in NO_FAULT)
    note = f" ({should} of them of a SHOULD)" if should else ""
    who = report.target
    if report.facts is not None:
        count = report.facts.device_count
        devices = f", {count} device{'s' * (count != 1)}" if report.party == "server" else ""
        who += f", protocol {report.facts.spoken}{devices}"
    return f"{who}: {len(report.results)} cases, {found or 'none run'}{note}"
