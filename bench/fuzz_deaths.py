"""How many deaths of a genuine server the fuzzer finds in ten minutes, with nothing to begin with.

    .venv/bin/python -m bench.fuzz_deaths 3.6.1 [--jobs 2] [--seconds 600] [--coverage] [--no-feedback] [--finds DIRECTORY]

It writes bench/fuzz_deaths.json: for each version how many different deaths (by signal and place) and other finds, when the n-th
death was found, how many steps its session has and had before it was made smaller, how often it was seen again, messages a second,
edges where the server counts them (`upstream install VERSION --coverage`). Where a server dies, and the sessions that make it, stay
in DIRECTORY, a temporary one by default: they are for its makers.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ggml_rpc_ref.fuzz import Ended, Found, Goal, Options, Store, run
from ggml_rpc_ref.fuzz.finds import Find
from ggml_rpc_ref.fuzz.watch import MEMORY

TABLE = Path(__file__).with_name("fuzz_deaths.json")


def row_of(find: Find) -> dict[str, Any]:
    """Return what the table says of a find: nothing that helps to repeat it."""
    return {
        "signal": find.death.signal if find.death else "",
        "seconds": round(find.seconds, 1),
        "steps": find.steps,
        "steps_before": find.steps_before,
        "reproduced": list(find.reproduced),
    }


def measured(goal: Goal, store: Store, jobs: int) -> dict[str, Any]:
    """Have a campaign; return its row."""
    deaths: list[dict[str, Any]] = []
    others, count = 0, None
    for event in run(goal, store, jobs):
        match event:
            case Found(find) if find.death is not None:
                deaths.append(row_of(find))
                print(f"{len(deaths)}: {find.seconds:.0f} s, {find.death.signal}", flush=True)
            case Found():
                others += 1
            case Ended(count, why):
                print(why or "its time is over", flush=True)
    assert count is not None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "load": float(Path("/proc/loadavg").read_text().split()[0]),
        "jobs": jobs,
        "seconds": round(count.seconds, 1),
        "feedback": goal.options.feedback,
        "different_deaths": len(deaths),
        "other_finds": others,
        "deaths_in_all": count.deaths,
        "sessions": count.sessions,
        "messages": count.messages,
        "messages_a_second": round(count.rate),
        "edges": count.edges.bit_count(),
        "found": deaths,
    }


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("version")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--no-feedback", action="store_true")
    parser.add_argument("--finds", type=Path)
    parser.add_argument("--seed", default="0")
    arguments = parser.parse_args()
    coverage = " --coverage" if arguments.coverage else ""
    spawn = f"{sys.executable} -m ggml_rpc_ref upstream serve {arguments.version} --port {{port}} --threads 1{coverage}"
    goal = Goal(spawn, "", MEMORY, True, Options(seed=arguments.seed, max_time=arguments.seconds))
    goal = replace(goal, options=replace(goal.options, feedback=not arguments.no_feedback))
    with tempfile.TemporaryDirectory() as directory:
        row = measured(goal, Store(arguments.finds or Path(directory)), arguments.jobs)
    table: dict[str, Any] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    ways = [word for word, is_so in (("coverage", arguments.coverage), ("no feedback", arguments.no_feedback)) if is_so]
    table[", ".join([arguments.version, *ways])] = row
    # a find on a line
    rows = re.sub(r'\{\s+"signal".*?\}', lambda find: re.sub(r"\s+", " ", find[0]), json.dumps(table, indent=1), flags=re.DOTALL)
    TABLE.write_text(rows + "\n")


if __name__ == "__main__":
    main()
