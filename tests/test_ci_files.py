"""The CI action and the Dockerfile, as far as they can be tried without GitHub and Docker: the action's script is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ACTION = (ROOT / ".github" / "actions" / "conform" / "action.yml").read_text()
DOCKERFILE = (ROOT / ".ci" / "Dockerfile").read_text()


def test_the_action_uses_every_input_and_no_other() -> None:
    declared = re.findall(r"^  ([a-z]+):$", ACTION.partition("inputs:")[2].partition("outputs:")[0], re.MULTILINE)
    assert set(declared) == set(re.findall(r"inputs\.([a-z]+)", ACTION))


@pytest.mark.parametrize(("behaviour", "status"), [("plain", 0), ("no-copy", 1)])
def test_the_actions_script_judges_and_leaves_reports(behaviour: str, status: int, tmp_path: Path) -> None:
    script = textwrap.dedent(ACTION.rpartition("run: |\n")[2])
    program = tmp_path / "ggml-rpc-ref" / "bin" / "ggml-rpc-ref"
    program.parent.mkdir(parents=True)
    # two cases: what the others find is not for here
    chosen = "--only data.copy/same-buffer --only device.count/at-least-1"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ggml_rpc_ref "$@" {chosen}\n')
    program.chmod(0o755)
    reports, output = tmp_path / "reports", tmp_path / "output"
    expect = tmp_path / "expect.json"
    expect.write_text("{}")
    environment = os.environ | {
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(output),
        "SPAWN": f"{sys.executable} -m tests.support.odd_server {{port}} {behaviour}",
        "ENDPOINT": "",
        "PROFILE": "full",
        "EXPECT": "" if status else str(expect),
        "REPORTS": str(reports),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done
    assert output.read_text() == f"exit-status={status}\n"
    assert {path.name for path in reports.iterdir()} >= {"report.html", "report.json", "junit.xml", "report.sarif"}
    assert json.loads((reports / "report.json").read_text())["exit_status"] == status


def test_the_dockerfile_copies_what_is_there_and_names_what_we_have() -> None:
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    assert "html = [" in (ROOT / "pyproject.toml").read_text()
