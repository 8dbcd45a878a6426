"""The door of the command line: documented exit codes, one sentence on stderr, results on stdout, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ggml_rpc_ref
from ggml_rpc_ref import upstream
from ggml_rpc_ref.commands import main as cli
from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.serve import offering
from ggml_rpc_ref.errors import Misuse, Violation
from tests.support.command import run_command

COMMAND = Path(sys.executable).parent / "ggml-rpc-ref"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, env=environment)


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ggml-rpc-ref {ggml_rpc_ref.__version__}\n", "")


def test_each_command_of_the_readme_exists() -> None:
    text = run("--help", COLUMNS="200").stdout
    for command in ("serve", "conform", "show", "probe", "upstream", "gen"):
        assert f" {command} " in text


def test_backends_are_counted_by_one_table() -> None:
    """The oracle computes everything that computes, and nobody more than there is."""
    counts = [re.search(r"computes (\d+) of (\d+) ops", line) for line in run("backends").stdout.splitlines()]
    found = [(int(count[1]), int(count[2])) for count in counts if count]
    assert found[0][0] == found[0][1]
    assert len(found) >= 2
    assert all(0 < some <= most == found[0][1] for some, most in found[1:])
    listed = json.loads(run("backends", "--json").stdout)
    assert listed[0]["ops"] == found[0][0]


TIMED = (("probe",), ("conform",), ("vectors", "play"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nonsense",), 2, "No such command"),
        (("serve", "-d", "abacus"), 2, "there is no device 'abacus'"),
        (("serve", "-m", "much"), 2, "'much' is not a size"),
        (("probe", "127.0.0.1:0"), 2, "127.0.0.1:0"),
        (("probe", "127.0.0.1:1"), 3, "127.0.0.1:1"),
        (("replay", "pyproject.toml", "127.0.0.1:1"), 2, "`replay` plays what `fuzz --finds`"),  # 1 would be: the fault is there
        (("conform", "127.0.0.1:1"), 3, "127.0.0.1:1"),
        (("show", "no.such-rule"), 2, "no.such-rule"),
        (("gen", "no-such-file.md"), 2, "no-such-file.md is not a file"),
        *((("probe", "--timeout", seconds, "127.0.0.1:1"), 2, "--timeout") for seconds in ("inf", "nan", "1e308", "86401")),
        (("conform", "--timeout", "inf", "127.0.0.1:1"), 2, "--timeout"),
        (("vectors", "play", "--timeout", "inf", "127.0.0.1:1"), 2, "--timeout"),
        (("serve", "-m", "9" * 400), 2, "is more than a machine can have"),
        (("serve", "-m", "99999999T"), 2, "'99999999T' is more than a machine can have"),
        (("serve", "--cache-limit", "8388608T"), 2, "'8388608T' is more than a machine can have"),
        (("gen", "/bin/sh"), 2, "/bin/sh is not UTF-8 text: byte "),
        (("gen", "--check", "/bin/sh"), 2, "/bin/sh is not UTF-8 text: byte "),
        (("upstream", "install", "9.9.9"), 2, "ggml-rpc-ref upstream list"),
        (("upstream", "install", "1.0.0"), 2, "no package of the Python index holds a build of protocol 1.0.0"),
        (("upstream", "serve", "3.6.1"), 2, "ggml-rpc-ref upstream install 3.6.1"),
        (("upstream", "generate", "3.6.1", "--prompt", "x"), 2, "ggml-rpc-ref upstream install 3.6.1"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_a_failure_is_a_sentence_and_a_code(arguments: tuple[str, ...], code: int, words: str, tmp_path: Path) -> None:
    done = run(*arguments, XDG_CACHE_HOME=str(tmp_path), COLUMNS="200")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 2000


@pytest.mark.parametrize("words", TIMED, ids=" ".join)
def test_the_longest_time_that_may_be_asked_for(words: tuple[str, ...]) -> None:
    """Accepted, and no overflow where sockets get it: the command fails because nothing listens."""
    done = run(*words, "--timeout", "86400", "127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr


INTERRUPTED_IMPORTS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with it ignored
parent, seen = os.getpid(), []

class Interrupt:  # at every fifth module a fork of this process gets the signal, which goes on without
    def find_spec(self, name, path=None, target=None):
        if os.getpid() != parent or name == "ggml_rpc_ref.__main__":
            return
        seen.append(name)
        if len(seen) % 5 != 1:
            return
        ours, theirs = os.pipe()
        if not (child := os.fork()):
            os.dup2(theirs, 1), os.dup2(theirs, 2), os.close(ours)
            os.kill(os.getpid(), signal.SIGINT)
            return
        os.close(theirs)
        with os.fdopen(ours) as said:
            text = said.read()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), name, repr(text), file=sys.stderr)

import ggml_rpc_ref
sys.meta_path.insert(0, Interrupt())
sys.argv = ["ggml-rpc-ref", "--version"]
from ggml_rpc_ref.__main__ import main
main()
"""


def test_an_interrupt_at_any_import_is_no_traceback() -> None:
    """No `try` of the command line has been entered while its own modules come; those of a command come within one."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORTS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    ends = [line.split(" ", 2) for line in done.stderr.splitlines()]
    assert len(ends) > 20
    assert {(code, text) for code, _, text in ends} <= {("130", repr("ggml-rpc-ref: interrupted\n")), ("130", repr(""))}, ends
    assert ends[0][2] != repr("")


def test_nothing_is_imported_before_the_door() -> None:
    """What the package itself imports comes before anything can take Ctrl-C; `typing` and the errors were 10 ms."""
    program = (
        "import sys; before = set(sys.modules); import ggml_rpc_ref; print(*sorted(set(sys.modules) - before - {'__future__'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ggml_rpc_ref\n"


def test_the_installed_command_and_the_module_are_the_same_door() -> None:
    scripts = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"ggml-rpc-ref": "ggml_rpc_ref.__main__:main"}


def test_upstream_list_names_every_version(tmp_path: Path) -> None:
    listed = json.loads(run("upstream", "list", "--json", XDG_CACHE_HOME=str(tmp_path)).stdout)
    assert listed["schema_version"] == 1
    assert [row["name"] for row in listed["versions"]] == list(upstream.RELEASES)
    assert not any(row["installed"] for row in listed["versions"])
    lines = run("upstream", "list", XDG_CACHE_HOME=str(tmp_path)).stdout.splitlines()
    assert len(lines) == len(upstream.RELEASES)
    assert any(line.startswith("3.6.1 ") and "llama-cpp-python 0.3.20" in line for line in lines)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Misuse("say it otherwise"), 2),
        (Violation("device.count", "device_count", 0), 3),
        (ConnectionError("gone"), 3),
        (TimeoutError("late"), 3),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("oops"), 5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_error_has_its_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(standalone_mode: bool) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ggml-rpc-ref: ")
    assert captured.err.count("\n") == 1


HEAVY = {
    "numpy",
    "ggml_rpc_ref.ops",
    "ggml_rpc_ref.server",
    "ggml_rpc_ref.conformance",
    "ggml_rpc_ref.decode",
    "ggml_rpc_ref.upstream",
}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["probe", "127.0.0.1:1"], {"numpy"}),
        (["conform", "127.0.0.1:1"], {"numpy", "ggml_rpc_ref.conformance", "ggml_rpc_ref.ops"}),
        (["upstream", "list"], {"ggml_rpc_ref.upstream"}),
        (["serve", "-d", "abacus"], {"numpy", "ggml_rpc_ref.ops", "ggml_rpc_ref.server"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_imports_what_it_needs_and_no_more(words: list[str], needed: set[str]) -> None:
    program = (
        "import atexit, sys\n"
        "from ggml_rpc_ref.commands.main import main\n"
        "atexit.register(lambda: print('modules:', *sys.modules, file=sys.stderr))\n"
        f"sys.argv = ['ggml-rpc-ref', *{words}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert HEAVY & set(done.stderr.rpartition("modules:")[2].split()) == needed


@pytest.mark.skipif(not COMMAND.exists(), reason="the command is not installed beside this Python: pip install -e '.[test]'")
def test_the_shell_completes_commands() -> None:
    asked = {"_GGML_RPC_REF_COMPLETE": "complete_bash", "COMP_WORDS": "ggml-rpc-ref con", "COMP_CWORD": "1"}
    done = subprocess.run([COMMAND], capture_output=True, text=True, timeout=60, env=os.environ | asked, check=False)
    assert done.stdout.split() == ["conform", "conform-client"]


def test_no_help_is_written_in_brackets() -> None:
    """Rich takes "[default: never]" for markup, and prints nothing."""
    helps = [help for path in Path(cli.__file__).parent.glob("*.py") for help in re.findall(r'help="([^"]*)"', path.read_text())]
    assert len(helps) > 40
    assert [text for text in helps if re.search(r"\[[a-z#/@]", text)] == []


@pytest.mark.parametrize(
    "words", [["vectors", "list"], ["conform", "--list"], ["show", "frame.complete"], ["gen", "--header"]], ids=" ".join
)
def test_a_full_disk_has_a_sentence(words: list[str]) -> None:
    done = run_command(*words, stdout=Path("/dev/full"))
    assert (done.returncode, done.stderr) == (2, "ggml-rpc-ref: standard output: No space left on device\n")


# ------------------------------------------------------------------------------------------- streams that others have closed


def in_shell(line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell, in which `ggml-rpc-ref` is the command; its exit status is the command's in a pipeline, too."""
    command = f'set -o pipefail; ggml-rpc-ref() {{ "{sys.executable}" -m ggml_rpc_ref "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, env={**os.environ, **environ}, check=False
    )


CLOSED = ("<&-", ">&-", "2>&-")


@pytest.mark.parametrize(
    "words", ["probe {}", "status", "backends", "devices {}", "conform {} --only device.count", "show MUL_MAT", "--version"]
)
@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_stream_that_is_closed_is_one_that_nobody_reads(
    words: str, stream: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As cron jobs and daemons close them."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with ggml_rpc_ref.Server(memory=2**24) as server, offering(server):
        line = words.format(server.endpoint)
        said = in_shell(f"ggml-rpc-ref {line}")
        closed = in_shell(f"ggml-rpc-ref {line} {CLOSED[stream]}")
    assert (closed.returncode, said.returncode) == (0, 0), closed.stderr
    assert bool(closed.stdout) == (stream != 1)
    assert bool(closed.stderr) == (bool(said.stderr) and stream != 2)


def test_what_is_opened_does_not_take_the_number_of_a_closed_stream() -> None:
    """A library that prints to standard error would else write into a socket, or a recording."""
    ours = "import os, sys; from ggml_rpc_ref.commands.output import open_streams; open_streams(); print(os.open('/', 0))"
    line = f'"{sys.executable}" -c "{ours}; print(5, file=sys.stderr)" <&- 2>&-'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert int(done.stdout) > 2  # and the 5, which is for standard error, is not in it


@pytest.mark.parametrize("words", ["show MUL_MAT", "cases list", "conform {} --only 'device.*' --json", "vectors list"])
def test_a_reader_that_leaves_is_no_verdict(words: str) -> None:
    """Exit code 1 would say that a server breaks a rule."""
    with ggml_rpc_ref.Server(memory=2**24) as server:
        done = in_shell(f"ggml-rpc-ref {words.format(server.endpoint)} | true")
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, ExitCode.READER_LEFT)


def test_a_report_is_written_whatever_becomes_of_standard_output(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run_command("conform", "--only", "device.count", "--json", "--report", report, stdout=Path("/dev/full"))
    assert done.returncode == 2
    assert json.loads(report.read_text())["exit_status"] == 0


# ------------------------------------------------------------------------------------------------- what a shell makes of it


@pytest.mark.parametrize(
    ("words", "which"),
    [
        (("conform", ""), "HOST:PORT"),
        (("conform", "--spawn", ""), "--spawn"),
        (("fuzz", "--max-time", "0.1", ""), "HOST:PORT"),
        (("fuzz", "--max-time", "0.1", "--spawn", ""), "--spawn"),
        (("vectors", "play", ""), "HOST:PORT"),
        (("replay", "/none", ""), "HOST:PORT"),
    ],
)
def test_a_variable_that_is_not_set_is_no_server(words: tuple[str, ...], which: str) -> None:
    """`conform "$SERVER"` judged our own, and found it right."""
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ggml-rpc-ref: {which} is empty: name a server, or leave it out\n"


@pytest.mark.parametrize(
    "words",
    [
        ("fuzz", "--max-time", "0.1", "--finds"),
        ("fuzz-client", "--finds", "{}", "--", "false", "{endpoint}"),
        ("conform", "--only", "device.count", "--reproduce"),
    ],
)
def test_a_directory_that_can_not_be_written_is_named_before_the_run(words: tuple[str, ...], tmp_path: Path) -> None:
    """Hours later there is something to write."""
    (tmp_path / "file").touch()
    place = str(tmp_path / "file")
    line = [place if word == "{}" else word for word in words] if "{}" in words else [*words, place]
    done = run(*line)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ggml-rpc-ref: can't write {place}: File exists\n"


def test_a_full_disk_is_not_said_to_be_standard_output() -> None:
    done = run("proxy", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--record", "/dev/full")
    assert done.returncode == 2
    assert done.stderr == "ggml-rpc-ref: can't write the recording /dev/full: No space left on device\n"


def test_a_terminal_obeys_no_file_name() -> None:
    done = run("decode", "a\x1b[31mb")
    assert done.stderr == "ggml-rpc-ref: can't read a\\x1b[31mb: No such file or directory\n"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EMFILE, "the system: Too many open files"),
        (errno.ENOMEM, "the system: Cannot allocate memory"),
        (errno.ENOSPC, "standard output: No space left on device"),
        (errno.EIO, "standard output: Input/output error"),
    ],
)
def test_what_the_system_lacks_is_not_standard_outputs_fault(
    number: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And where no descriptor is left, none can be opened to say so."""

    def failing(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli, "app", failing)
    monkeypatch.setattr(cli, "open_streams", lambda: None)
    monkeypatch.setattr(cli, "as_ctrl_c", lambda: None)
    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (2, f"ggml-rpc-ref: {said}\n")
