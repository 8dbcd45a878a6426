"""The command: see the package's docstring."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import tests.mutation
from tests.mutation.forked import Zygote
from tests.mutation.inside import Inside
from tests.mutation.killing import Killer
from tests.mutation.mutants import MODULES, Mutant, mutants
from tests.mutation.reach import known, mark_of_modules, over_the_wire, questions

HERE = Path(__file__).parent
REASONS = HERE / "survivors.json"
EQUIVALENT = "equivalent: "
"""How the reason of a survivor begins that no peer can tell from the unchanged server."""


def chosen(modules: list[str], count: int, seed: int) -> list[Mutant]:
    """Return a sample of the mutants of some modules."""
    found = mutants(modules or MODULES)
    return random.Random(seed).sample(found, min(count, len(found)))


def survivors(score: Path) -> list[Mutant]:
    """Return the mutants that survived a run, as far as their lines are still there: new cases may kill them.

    What the others were killed by is a case that is still there, and finds what it found.
    """
    wanted = json.loads(score.read_text(encoding="utf-8"))["survivors"]
    return [mutant for mutant in mutants(sorted({key.partition(" ")[0] for key in wanted})) if mutant.key in wanted]


def judge(sample: list[Mutant], results: Path, share: tuple[int, int], limit: float) -> None:
    """Judge one share of the mutants that have no result yet; each result is a line, written as it is found."""
    done = {row["key"] for row in read(results)}
    everything = questions()
    asked = over_the_wire(everything)
    mark, end = mark_of_modules(), time.monotonic() + limit
    reach = known(results.with_suffix(".reach.json"), asked, limit)
    if reach is None:
        print("not all is known yet of what the cases reach: run it again", file=sys.stderr)
        return
    with Zygote() as zygote, results.open("a") as file:
        killer = Killer(zygote, asked, reach, Inside(everything))
        for number, mutant in enumerate(sample):
            if number % share[1] != share[0] or mutant.key in done:
                continue
            if time.monotonic() > end:
                return
            if mark_of_modules() != mark:
                print("the code has changed since the beginning: run this in a checkout that nobody touches", file=sys.stderr)
                return
            fate = killer.fate(mutant)
            file.write(json.dumps(fate.as_json()) + "\n")
            file.flush()
            if not fate.by:
                print(f"survives {fate.shown} of {fate.reaching} cases: {mutant.key} (line {mutant.line})", flush=True)


def read(results: Path) -> list[dict[str, Any]]:
    """Return the results so far; the last one of each mutant counts."""
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    return list({row["key"]: row for row in rows}.values())


def kind(row: dict[str, Any]) -> str:
    """Return what a survivor shows the suite to lack, where its line and its name say it; "" where somebody has to look."""
    if not row["reaching"]:
        return "no case of these versions reaches the line"
    if ": without `node.require" in row["key"] or ": without `require_" in row["key"]:
        return "no case sends a node that breaks this condition of its op and no other"
    return ""


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the score: how many were killed, by what, and each survivor with its reason."""
    reasons = json.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
    survivors = {row["key"]: reasons.get(row["key"]) or kind(row) for row in rows if not row["by"]}
    by = Counter(row["by"].partition(" ")[0].partition("/")[0] for row in rows if row["by"])
    killed = len(rows) - len(survivors)
    explained = sum(reason.startswith(EQUIVALENT) for reason in survivors.values())
    return {
        "mutants": len(rows),
        "killed": killed,
        "verdicts": dict(Counter(row["verdict"] if row["by"] != "start" else "start" for row in rows if row["by"]).most_common()),
        "not_reached": sum(not row["reaching"] for row in rows),
        "explained": explained,
        "score": round(100 * killed / len(rows), 1) if rows else None,
        "score_without_explained": round(100 * killed / (len(rows) - explained), 1) if len(rows) > explained else None,
        "killed_by": dict(by.most_common()),
        "survivors": dict(sorted(survivors.items())),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=tests.mutation.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", default=[], help="below ggml_rpc_ref/; may be repeated")
    parser.add_argument("--count", type=int, default=300, help="so many mutants at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("mutation.jsonl"), help="a line for each mutant; those in it are done")
    parser.add_argument("--share", default="0/1", metavar="I/N", help="judge every Nth mutant, from the Ith")
    parser.add_argument("--limit", type=float, default=1e9, metavar="SECONDS", help="begin no mutant after this time")
    parser.add_argument("--again", type=Path, metavar="SCORE", help="only the survivors of that run: for new cases")
    parser.add_argument("--list", action="store_true", help="print the mutants and end")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print the score of these results and end")
    options = parser.parse_args()
    if options.report:
        print(json.dumps(summary(read(options.report)), indent=1, ensure_ascii=False))
        return
    sample = survivors(options.again) if options.again else chosen(options.module, options.count, options.seed)
    if options.list:
        print("\n".join(f"{mutant.line:5} {mutant.key}" for mutant in sample))
        return
    first, _, number = options.share.partition("/")
    judge(sample, options.results, (int(first), int(number)), options.limit)
    if options.share == "0/1":
        print(json.dumps(summary(read(options.results)) | {"seed": options.seed}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
