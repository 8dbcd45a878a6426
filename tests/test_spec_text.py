"""SPEC.md's prose: rules and ids, links, cases, and its first conversation played again."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ggml_rpc_ref import upstream
from ggml_rpc_ref.conformance import CASES
from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.rules import FOR_CLIENTS, FOR_SERVERS, RULES
from tests.support import requirements

ROOT = Path(__file__).parents[1]
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
PROSE = re.sub(r"<!-- derived: .+? -->.*?<!-- end -->", "", SPEC, flags=re.DOTALL)
"""What people wrote: without the derived parts."""
TEXT = re.sub(r"```.*?```", "", PROSE, flags=re.DOTALL)
"""Prose without code blocks."""
ID = re.compile(r"\[([a-z]+\.[a-z0-9-]+)\]")


# ---------------------------------------------------------------------------------------------------------------- rules


def test_prose_names_every_rule_and_no_other() -> None:
    named = set(ID.findall(PROSE))
    assert named - set(RULES) == set(), "no such rule"
    assert set(RULES) - named == set(), "say in prose where this rule bites"


def sentences() -> Iterator[str]:
    """List items and paragraphs, cut behind full stops; a table's row is one."""
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-|#]|\d+\.) )", TEXT):
        yield from re.split(r"(?<=[.;:])\s+(?=[A-Z*`])", " ".join(block.split()))


def without_id(texts: Iterator[str]) -> list[str]:
    return [text for text in texts if re.search(r"\b(MUST|SHOULD)\b", text.replace("**", "")) and not ID.search(text)]


def test_every_must_carries_its_rule() -> None:
    assert without_id(sentences()) == [
        "**MUST**, **MUST NOT**, **SHOULD** and **MAY** are used as in RFC 2119, in capitals only.",
    ]
    assert without_id(iter(["A server MUST sing.", "It **SHOULD NOT** dance.", "It MUST [graph.type] hum."])) == [
        "A server MUST sing.",
        "It **SHOULD NOT** dance.",
    ]


def test_every_must_for_servers_has_cases_and_every_case_a_rule() -> None:
    assert {case.rule.id for case in CASES.values()} == set(FOR_SERVERS)


def test_every_must_for_clients_has_cases_and_every_case_a_rule() -> None:
    assert {case.rule.id for case in CLIENT_CASES.values()} == set(FOR_CLIENTS)


def test_levels_in_prose_are_those_of_the_table() -> None:
    """A sentence that says MUST names a MUST rule, one that says SHOULD a SHOULD rule, one that says both both."""
    told = set()
    for sentence in sentences():
        words = set(re.findall(r"\b(?:MUST|SHOULD)\b", sentence))
        if words and (ids := ID.findall(sentence)) and not sentence.startswith("Each MUST and SHOULD carries"):
            assert {RULES[id].level for id in ids} == words, sentence
            told |= words
    assert told == {"MUST", "SHOULD"}


# ---------------------------------------------------------------------------------------------------------------- links


def slugs(text: str) -> set[str]:
    """The anchors of a text on a code host: headings, numbered where they repeat, and explicit ones."""
    found: dict[str, int] = {}
    anchors = set(re.findall(r'<a id="([^"]+)">', text))
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", outside, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = found[slug] = found.get(slug, -1) + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return anchors


def test_internal_links_resolve() -> None:
    wanted = set(re.findall(r"\]\(#([^)]+)\)", SPEC)) | set(re.findall(r"^\[[^\]]+\]: #(.+)$", SPEC, re.MULTILINE))
    assert wanted - slugs(SPEC) == set()
    assert len(wanted) > 200


def test_links_to_files_resolve() -> None:
    files = set(re.findall(r"\]\((?!#|https?:)([^)]+)\)", SPEC))
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []
    assert len(files) > 80


def test_no_heading_comes_twice() -> None:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", SPEC, flags=re.DOTALL), re.MULTILINE)
    assert "Contents" in headings
    assert sorted({heading for heading in headings if headings.count(heading) > 1}) == []


def test_contents_list_every_chapter() -> None:
    chapters = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    contents = SPEC[SPEC.index("## Contents") : SPEC.index("## Ten minutes")]
    listed = {"contents", *re.findall(r"\]\(#([^)]+)\)", contents)}
    assert {"Contents", "Public record"} <= set(chapters)
    assert [chapter for chapter in chapters if not slugs(f"## {chapter}") <= listed] == []


def test_reports_that_are_cited_are_listed() -> None:
    listed = set(re.findall(r"^\| ((?:SEC|OBS|FUN)-\d+) \|", SPEC, re.MULTILINE))
    cited = set(re.findall(r"\b(?:SEC|OBS|FUN)-\d+", SPEC[: SPEC.index("## Public record")]))
    assert cited
    assert cited - listed == set()


def test_a_code_host_renders_it() -> None:
    assert len(SPEC.encode()) < 500_000  # GitHub shows no more than 512 KB
    assert SPEC.count("```") % 2 == 0
    assert SPEC.count("<details>") == SPEC.count("</details>")


# --------------------------------------------------------------------------------------------------------- conversation


def conversation() -> list[tuple[str, bytes]]:
    """The steps of "Ten minutes": (→ or ←, bytes), neighbours of one direction joined."""
    chapter = SPEC[SPEC.index("## Ten minutes") : SPEC.index("## How to read this")]
    steps: list[tuple[str, bytes]] = []
    for way, words in re.findall(r"^([→←]) (.+?)  ", chapter, re.MULTILINE):
        tokens = re.findall(r"([0-9a-f]{2})(?:\*(\d+))?", words)
        data = b"".join(bytes([int(byte, 16)]) * int(count or 1) for byte, count in tokens)
        if steps and steps[-1][0] == way:
            data = steps.pop()[1] + data
        steps.append((way, data))
    return steps


PRINTED_HANDLE, PRINTED_BASE = 0x563ED1D71C40, 0x563ED1C12C40


def play(endpoint: str) -> list[tuple[bytes, bytes]]:
    """Play the client's part, the printed numbers replaced by those of this server; return (expected, received) per answer."""
    host, _, port = endpoint.rpartition(":")
    numbers: dict[int, int] = {}
    answers = []

    def actual(data: bytes) -> bytes:
        for printed, own in numbers.items():
            data = data.replace(printed.to_bytes(8, "little"), own.to_bytes(8, "little"))
        return data

    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for way, data in conversation():
            if way == "→":
                connection.sendall(actual(data))
                continue
            received = b""
            while len(received) < len(data) and (more := connection.recv(len(data) - len(received))):
                received += more
            if data[8:16] == PRINTED_HANDLE.to_bytes(8, "little"):
                numbers[PRINTED_HANDLE] = int.from_bytes(received[8:16], "little")
            if data[8:16] == PRINTED_BASE.to_bytes(8, "little"):
                base = int.from_bytes(received[8:16], "little")
                numbers |= {PRINTED_BASE + offset: base + offset for offset in (0, 32, 64)}
            answers.append((actual(data), received))
    return answers


def test_the_conversation_is_whole() -> None:
    steps = conversation()
    assert [way for way, _ in steps] == ["→", "←"] * 6
    assert [len(data) for _, data in steps] == [9, 11, 13, 16, 21, 24, 17, 16, 2 * 329 + 917 + 321, 24, 17, 8]
    assert steps[9][1][8:].hex() == "0000884100001c420000b84100005442"  # 17, 39, 23, 53


def test_the_conversation_goes_so_with_our_server() -> None:
    with Server(make_host("oracle", memory=2**20)) as server:
        answers = play(server.endpoint)
    assert [received for _, received in answers] == [expected for expected, _ in answers]
    assert len(answers) == 6


def test_the_conversation_goes_so_with_the_genuine_server(upstream_server: upstream.Server) -> None:
    answers = play(upstream_server.endpoint)
    assert [received for _, received in answers] == [expected for expected, _ in answers]


def test_the_hash_in_c_gives_the_hashes_of_the_table(tmp_path: Path) -> None:
    requirements.compiler("gcc")
    (lines,) = re.findall(r"```c\n(.*?)\n```", SPEC, re.DOTALL)
    rows = re.findall(r"^\| (?:`(\w+)`|nothing) \| ([0-9a-f]{16}) \|$", SPEC, re.MULTILINE)
    program = (
        "#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\nint main(int argc, char **argv) {\n(void)argc;\n"
        f"const unsigned char *data = (void *)argv[1]; size_t n = strlen(argv[1]);\n{lines}\n"
        'printf("%016llx", (unsigned long long)h);\nreturn 0;\n}\n'
    )
    (tmp_path / "hash.c").write_text(program)
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", tmp_path / "hash", tmp_path / "hash.c"], check=True)
    found = [subprocess.run([tmp_path / "hash", data], check=True, capture_output=True, text=True).stdout for data, _ in rows]
    assert found == [value for _, value in rows]
    assert len(rows) == 3
