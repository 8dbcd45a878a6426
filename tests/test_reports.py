"""Reports for others: JUnit, SARIF, the page, differences, expected failures with patterns; all from one result."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ggml_rpc_ref.commands.writing import Writing
from ggml_rpc_ref.conformance import (
    CASES,
    Baseline,
    Expected,
    Report,
    Result,
    Verdict,
    as_json,
    as_text,
    difference,
    formats,
    html,
    load,
    surprises,
    written,
)
from ggml_rpc_ref.conformance.peer import Facts, TranscriptPiece
from ggml_rpc_ref.conformance.printed import shown_lines
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.versions import V3_6_1
from tests.support.command import run_command

SCHEMAS = Path(__file__).parent.parent / "ggml_rpc_ref" / "conformance" / "schema"
EVIL = "\x1b[2J<script>alert(1)</script>\x00&"


def result(id: str, verdict: Verdict, **fields: Any) -> Result:
    good = verdict in (Verdict.PASS, Verdict.SKIP, Verdict.UNSUPPORTED)
    return Result(
        CASES[id], verdict, CASES[id].rule.id, "" if good else "this", "" if verdict is Verdict.PASS else EVIL, 0.25, **fields
    )


def report(name: str = "a server") -> Report:
    record = (TranscriptPiece(1, "sent", "HELLO", b"\x0e" + bytes(8)), TranscriptPiece(1, "got", "end", b""))
    results = [
        result("data.copy/same-buffer", Verdict.PASS),
        result("data.copy/onto-itself", Verdict.FAIL, record=record, server_said=(EVIL,)),
        result("data.copy-fits/into-end", Verdict.CRASH, death="killed by SIGSEGV"),
        result("data.empty/set-at-end", Verdict.FAIL),
        result("buffer.clear/0", Verdict.SKIP, waits_for="BUFFER_CLEAR"),
    ]
    return Report(f"{name} {EVIL}", Facts(V3_6_1), results=results, planned=5)


def run_of(name: str = "a server") -> dict[str, Any]:
    return json.loads(json.dumps(as_json(report(name), 4)))


def test_the_report_follows_its_schema() -> None:
    jsonschema.validate(run_of(), json.loads((SCHEMAS / "report.json").read_text()))


def test_junit_is_read_as_ci_systems_read_it() -> None:
    root = ElementTree.fromstring(formats.as_junit(run_of()).encode())
    suites = {suite.get("name"): suite for suite in root}
    assert {name: [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] for name, suite in suites.items()} == {
        "data": ["4", "2", "1", "0"],
        "buffer": ["1", "0", "0", "1"],
    }
    failed = suites["data"].find("testcase[@name='data.copy/onto-itself']")
    assert failed is not None
    assert (failed.get("classname"), failed.get("time")) == ("data.copy", "0.250")
    assert failed[0].tag == "failure"
    assert failed[0].get("type") == "FAIL MUST"
    assert "1 sent HELLO 9 bytes 0e0000000000000000" in (failed[0].text or "")


def test_sarif_names_rules_and_levels() -> None:
    (run,) = formats.as_sarif(run_of())["runs"]
    assert [(row["ruleId"], row["level"]) for row in run["results"]] == [
        ("data.copy", "error"),
        ("data.copy-fits", "error"),
        ("data.empty", "warning"),
    ]
    rules = [row["id"] for row in run["tool"]["driver"]["rules"]]
    assert all(rules[row["ruleIndex"]] == row["ruleId"] for row in run["results"])


class Page(HTMLParser):
    """The elements of a page, and what leads out of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action", "srcset"):
                self.links.append(value or "")


def test_the_page_stands_alone_and_holds_every_case() -> None:
    text = html.render([run_of("one"), run_of("other")])
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {row.case.id for row in report().results} <= set(page.ids)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?://|url\(|@import", text)
    # the only script is the page's own: what a server is called or prints is text
    assert page.tags.count("script") == 1
    assert "<script>alert(1)</script>" not in text
    assert "1 sent HELLO 9 bytes 0e0000000000000000" in text


def test_the_page_offers_the_verdicts_that_there_are() -> None:
    runs = [run_of("one"), run_of("other")]
    text = html.render(runs)
    boxes = re.findall(r'class="filter" value="(\w+)".*?<span class="soft">(\d+)</span>', text)
    assert dict(boxes) == {"PASS": "1", "SKIP": "1", "FAIL": "2", "CRASH": "1"}


def test_how_it_died_is_said_once() -> None:
    run = run_of("one")
    (died,) = (case for case in run["cases"] if case["verdict"] == "CRASH")
    assert html.render([run]).count("killed by SIGSEGV") == 1
    died["actual"] = "the server died: killed by SIGSEGV"
    assert html.render([run]).count("killed by SIGSEGV") == 1


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("/a/b/ggml.c:12: GGML_ASSERT(x) failed\n", ["ggml.c:12: GGML_ASSERT(x) failed"]),
        (
            "/" + "a" * 300 + "/ggml.c:12: GGML_ASSERT(x) failed",
            ["ggml.c:12: GGML_ASSERT(x) failed"],
        ),  # the path is not what is kept
        ("y" * 200, ["y" * 200]),
        ("y" * 201, ["y" * 200 + "…"]),
        ("\x1b[31mred\x1b[0m\r\n \n\x00\n", ["[31mred[0m"]),
        ("/" * 60000, ["/" * 200 + "…"]),  # in time: a line may be as long as all that is read
    ],
)
def test_what_was_printed_is_shown_so_that_it_can_be_read(printed: str, shown: list[str]) -> None:
    assert shown_lines(printed) == shown


# ------------------------------------------------------------------------------------------------------------ differences


def test_what_changed_between_two_runs() -> None:
    before = {"a": "PASS", "b": "FAIL", "c": "FAIL", "d": "PASS", "e": "FAIL", "f": "SKIP"}
    now = {"a": "FAIL", "b": "PASS", "c": "CRASH", "d": "PASS", "f": "PASS", "g": "HANG"}
    found = difference.compare(before, now)
    assert found.broken == {"a": ("PASS", "FAIL"), "c": ("FAIL", "CRASH"), "g": ("", "HANG")}
    assert found.mended == {"b": ("FAIL", "PASS"), "e": ("FAIL", "")}
    assert found.other == {"f": ("SKIP", "PASS")}
    assert "broken   g: not run before, HANG now" in list(found.lines())


@pytest.mark.parametrize("content", ["", "[]", '{"cases": 1}', '{"cases": [{"id": "a", "verdict": "GOOD"}]}'])
def test_another_file_is_no_report(content: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(Misuse, match="is not a report of"):
        difference.read(path)


@pytest.mark.parametrize("form", ["html", "xml", "sarif"])
@pytest.mark.parametrize("row", [{"id": "a", "verdict": "PASS"}, {"id": "a", "verdict": "FAIL", "rule": 5}])
def test_of_a_report_that_is_not_whole_no_other_is_made(row: dict[str, Any], form: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"cases": [row], "target": None}))
    done = run_command("report", str(path), "-o", str(tmp_path / f"new.{form}"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ggml-rpc-ref: {path} is not a whole report of `ggml-rpc-ref conform --json`\n"


# ------------------------------------------------------------------------------------------------------ expected failures


def baseline(tmp_path: Path, rows: object) -> Baseline:
    path = tmp_path / "expected.json"
    path.write_text(json.dumps(rows))
    return load(path)


def test_patterns_expect_many_and_ids_say_more(tmp_path: Path) -> None:
    known = baseline(
        tmp_path,
        {
            "data.*": {"verdict": ["FAIL", "PASS"], "reason": "new"},
            "data.copy-fits/*": {
                "verdict": "CRASH",
                "reason": "old",
                "reference": "https://example.org/1",
                "review_by": "2026-01-31",
            },
            "data.empty/set-at-end": {"verdict": "PASS", "reason": "mended"},
        },
    )
    assert surprises(report().results, known) == ["data.empty/set-at-end: FAIL where PASS is expected (mended)"]
    assert known["data.copy-fits/into-end"].reference == "https://example.org/1"
    assert known.overdue(date(2026, 1, 31)) == []
    assert known.overdue(date(2026, 2, 1)) == ["data.copy-fits/*: it was to be looked at again by 2026-01-31 (old)"]
    jsonschema.validate(json.loads((tmp_path / "expected.json").read_text()), json.loads((SCHEMAS / "expect.json").read_text()))


def test_a_pattern_that_no_case_has_is_a_surprise(tmp_path: Path) -> None:
    known = baseline(tmp_path, {"nothing.*": {"verdict": "FAIL", "reason": "x"}})
    assert "nothing.*: no case has this id" in surprises([], known)


def test_what_is_overdue_is_said(tmp_path: Path) -> None:
    known = baseline(tmp_path, {"data.copy/onto-itself": {"verdict": "FAIL", "reason": "x", "review_by": "2020-01-01"}})
    lines = list(as_text(report(), known))
    assert "review: data.copy/onto-itself: it was to be looked at again by 2020-01-01 (x)" in lines


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"verdict": "FAIL", "reason": "x", "review_by": "soon"}, "has a review_by that is not a day like 2027-01-31"),
        ({"verdict": "FAIL", "reason": "x", "review_by": 7}, "has a review_by that is not a day"),
        ({"verdict": "FAIL", "reason": "x", "until": "y"}, "has 'until', which means nothing here"),
    ],
)
def test_a_row_of_another_form_is_named(row: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=said):
        baseline(tmp_path, {"a": row})


def test_what_was_found_is_written_and_reasons_are_kept(tmp_path: Path) -> None:
    before = {
        "data.copy/onto-itself": Expected((Verdict.FAIL, Verdict.PASS), "known", "https://example.org", date(2027, 1, 31)),
        "data.empty/set-at-end": Expected((Verdict.CRASH,), "something else"),
        "buffer.clear/0": Expected((Verdict.FAIL,), "no longer"),
    }
    rows = written(report().results, before)
    assert set(rows) == {"data.copy/onto-itself", "data.copy-fits/into-end", "data.empty/set-at-end"}
    assert rows["data.copy/onto-itself"] == {
        "verdict": ["FAIL", "PASS"],
        "reason": "known",
        "reference": "https://example.org",
        "review_by": "2027-01-31",
    }
    assert rows["data.empty/set-at-end"]["reason"].startswith("not looked at yet: expected this; ")
    assert surprises(report().results, baseline(tmp_path, rows)) == []


# ---------------------------------------------------------------------------------------------------------------- files


def test_every_form_is_written(tmp_path: Path) -> None:
    paths = [tmp_path / f"report{ending}" for ending in (".json", ".xml", ".sarif", ".html")]
    writing = Writing(tuple(paths), tmp_path / "expected.json", tmp_path / "reproducers")
    writing.check()
    writing.write(report(), 4, None)  # type: ignore[arg-type]
    assert difference.read(paths[0])["data.copy/onto-itself"] == "FAIL"
    assert all(path.stat().st_size for path in paths)
    assert len(load(tmp_path / "expected.json")) == 3
    names = {path.name for path in (tmp_path / "reproducers").iterdir()}
    assert {"data.copy--onto-itself.json", "data.copy--onto-itself.py"} <= names


@pytest.mark.parametrize(
    ("name", "said"), [("report.pdf", "is to end in one of .json"), ("no/such/report.html", "there is no directory")]
)
def test_what_can_not_be_written_is_said_before_the_run(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=said):
        Writing((tmp_path / name,)).check()
