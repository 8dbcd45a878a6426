"""The files that `conform` writes: reports, expected failures, reproducers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.output import print_error
from ggml_rpc_ref.errors import Misuse

if TYPE_CHECKING:
    from ggml_rpc_ref.conformance import Expected, Report, Result
    from ggml_rpc_ref.spec.versions import Version

FORMS = (".json", ".xml", ".sarif", ".html")
"""The endings of reports' names, each a form."""


@dataclass(frozen=True, slots=True)
class Writing:
    """What is to be written.

    Attributes:
        reports: files, whose endings say in which form.
        expect: the file of expected failures.
        reproduce: the directory of reproducers.
    """

    reports: tuple[Path, ...] = ()
    expect: Path | None = None
    reproduce: Path | None = None

    def check(self) -> None:
        """Find out before the run whether the files can be written.

        Raises:
            Misuse: where not.
        """
        for path in self.reports:
            if path.suffix not in FORMS:
                raise Misuse(f"--report {path}: its name is to end in one of {', '.join(FORMS)}")
        for path in (*self.reports, *([self.expect] if self.expect else [])):
            if not path.absolute().parent.is_dir():
                raise Misuse(f"can't write {path}: there is no directory {path.parent}")

        if self.reproduce is not None:
            make_directory(self.reproduce)

    def write(self, report: Report, code: ExitCode, expected: Mapping[str, Expected] | None) -> None:
        """Write everything.

        Raises:
            Misuse: where a file can't be written.
        """
        from ggml_rpc_ref.conformance import as_json

        run = as_json(report, code, expected) if self.reports else {}
        for path in self.reports:
            write_file(path, formed(path.suffix, [run]))
        if self.expect:
            self._write_expected(self.expect, report)
        if self.reproduce:
            _write_reproducers(self.reproduce, report)

    def _write_expected(self, path: Path, report: Report) -> None:
        from ggml_rpc_ref.conformance import load, written

        before: Mapping[str, Expected] = load(path) if path.exists() else {}
        write_file(path, json.dumps(written(report.results, before), indent=1) + "\n")


LINE = 200
"""Characters of the line that says a failure as it is found; the report has all of it."""


def shortened(line: str) -> str:
    """Return a line of at most LINE characters."""
    return line if len(line) <= LINE else f"{line[: LINE - 1]}…"


NOTHING = Writing()
"""Nothing is to be written."""


def formed(suffix: str, runs: list[Any]) -> str:
    """Return the text of a report in the form that a file's ending names; only a page holds several runs."""
    from ggml_rpc_ref.conformance import formats, html

    match suffix:
        case ".json":
            return json.dumps(runs[0], indent=1) + "\n"
        case ".xml":
            return formats.as_junit(runs[0])
        case ".sarif":
            return json.dumps(formats.as_sarif(runs[0]), indent=1) + "\n"
    return html.render(runs)


def make_directory(path: Path) -> None:
    """Make a directory, unless it is there, and find out whether files can be written into it, before a run of hours.

    Raises:
        Misuse: where not.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Misuse(f"can't write {path}: {error.strerror}") from None


def write_file(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        Misuse: where that fails.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Misuse(f"can't write {path}: {error.strerror}") from None


def _write_reproducers(directory: Path, report: Report) -> None:
    from ggml_rpc_ref.conformance import NO_FAULT

    assert report.facts is not None or not report.results
    for result in report.results:
        if result.verdict in NO_FAULT or report.facts is None:
            continue
        name = result.case.id.replace("/", "--")
        try:
            text, script = (_of_client if report.party == "client" else _of_server)(result, report.facts.version, f"{name}.py")
        except Misuse as reason:
            print_error(f"no reproducer: {reason}")
            continue
        if text:
            write_file(directory / f"{name}.json", text)
        write_file(directory / f"{name}.py", script)


def _of_server(result: Result, version: Version, name: str) -> tuple[str, str]:
    """Return a reproducer's file and script."""
    from ggml_rpc_ref.conformance import Verdict
    from ggml_rpc_ref.golden import reproducer

    lost = result.verdict is Verdict.CRASH or bool(result.death)
    made = reproducer.make(result.record, result.case.id, _about(result), deadly=lost, version=version)
    return made.text(), reproducer.as_python(made, name)


def _of_client(result: Result, version: Version, name: str) -> tuple[str, str]:
    """Return the file, "" where it could not be told whether a client does the same again, and the script of a server."""
    from ggml_rpc_ref.conformance.clients import reproducer

    made = reproducer.make(result.record, result.case.id, _about(result), str(result.verdict))
    return made.text() if made.ended else "", reproducer.as_python(made, name)


def _about(result: Result) -> str:
    return f"{result.case.doc} {result.verdict}: {result.detail}"
