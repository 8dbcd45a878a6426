"""How long the fuzzer takes to find each of the sabotaged servers of the tests, none of which it is told of.

    .venv/bin/python -m bench.fuzz_sabotages [--messages 200000] [--jobs 2] [NAME…]

Each server runs in a process of its own, with the fuzzer in it, under the options of `ggml-rpc-ref fuzz`. The table is
bench/fuzz_sabotages.json: name to the messages before the first find, seconds and seconds of processor (of fuzzer and server
together), and what was found; null where nothing was.
Names given are measured again, the other rows are kept as they were measured before: date, load and messages are of the last run.
"none" is our own server without a fault: nothing may be found.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from ggml_rpc_ref.fuzz import Campaign, Found, Options
from ggml_rpc_ref.fuzz.watch import Usage, Watched
from tests.support.sabotage import SABOTAGES, InProcess, Sabotage
from tests.support.sabotage.quiet import QUIET

TABLE = Path(__file__).with_name("fuzz_sabotages.json")
NONE = "none"
LONGEST = 900.0
"""Seconds for one server."""


class Unmeasured(Watched):
    """A server whose process is the fuzzer's own, so that what it uses can't be told from what the fuzzer does."""

    def usage(self) -> Usage:
        """Return nothing."""
        return Usage()

    def worked(self) -> float:
        """Return the process's seconds of processor: while the fuzzer waits for an answer they are the server's."""
        return time.process_time()


def every() -> dict[str, Sabotage | None]:
    """Return the servers by name."""
    quiet = {f"quiet: {words}": Sabotage(session=session) for words, session in QUIET.items()}
    return {NONE: None, **SABOTAGES, **quiet}


def measured(task: tuple[str, int, str]) -> tuple[str, dict[str, Any] | None]:
    """Fuzz one server until something is found; return its name and its row."""
    name, messages, seed = task
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as directory:
        server = InProcess(Path(directory), every()[name], memory=2**28)
        options = Options(seed=seed, max_time=LONGEST, max_messages=messages, shrink=0.0, tries=1)
        campaign = Campaign(Unmeasured(lambda: server, spares=0), options)
        begun, used = time.monotonic(), time.process_time()
        for event in campaign.run():
            if isinstance(event, Found):
                find = event.find
                took = {"seconds": round(time.monotonic() - begun, 1), "cpu_seconds": round(time.process_time() - used, 1)}
                what = {"kind": find.kind.value, "rule": find.rule, "about": find.about[:160]}
                return name, {"messages": campaign.count.messages} | took | what
    return name, None


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", default="0")
    arguments = parser.parse_args()
    table: dict[str, Any] = json.loads(TABLE.read_text()) if TABLE.exists() else {"rows": {}}
    names = arguments.names or list(every())
    with multiprocessing.get_context("fork").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        # of its own, since what two processes do at the same time would want the same ports
        tasks = [(name, arguments.messages, f"{arguments.seed} {name}") for name in names]
        for name, row in pool.imap_unordered(measured, tasks):
            table["rows"][name] = row
            print(f"{name}: {'NOT found' if row is None else row}", flush=True)
            write(table, arguments.messages)  # after each: what was measured is kept where the rest is not


def write(table: dict[str, Any], messages: int) -> None:
    """Write the table."""
    load = Path("/proc/loadavg").read_text().split()[0]
    table["date"], table["messages"], table["load"] = time.strftime("%Y-%m-%d"), messages, float(load)
    table["rows"] = {name: table["rows"][name] for name in every() if name in table["rows"]}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
