"""What is loaded into a server that we start, in a page of C: where it died, and a fresh one in a millisecond.

At a fatal signal the stack is printed; its functions are named by what the loader knows of them, else by the file that they are in
and where they begin in it. The first accept() while there is one thread forks, and forks again whenever the child has died, so
that a server which dies a thousand times is started once. Linux with a C compiler only; elsewhere a death is known by its signal
and the server's last words, and each one costs a start.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

/* ---- the stack at a fatal signal */

static char room[65536];

static _Unwind_Reason_Code frame(struct _Unwind_Context *context, void *count) {
    int before = 0;
    uintptr_t at = _Unwind_GetIPInfo(context, &before) - !before;
    uintptr_t start = (uintptr_t) _Unwind_FindEnclosingFunction((void *) at);
    Dl_info found = {0};
    if (dladdr((void *) at, &found) && found.dli_fname) {
        const char *slash = strrchr(found.dli_fname, '/');
        dprintf(2, "\nggml-rpc-ref frame %s+0x%lx %s", slash ? slash + 1 : found.dli_fname,
                (unsigned long) ((start ? start : at) - (uintptr_t) found.dli_fbase), found.dli_sname ? found.dli_sname : "?");
    }
    return ++*(int *) count < 40 ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static _Unwind_Reason_Code warm_up(struct _Unwind_Context *context, void *unused) {
    Dl_info found;
    dladdr(_Unwind_FindEnclosingFunction((void *) _Unwind_GetIP(context)), &found);
    return _URC_NO_REASON;
}

static void handler(int number) {
    int count = 0;
    signal(number, SIG_DFL);
    dprintf(2, "\nggml-rpc-ref signal %d\n", number);
    alarm(1); /* an unwinder that hangs on a broken stack or heap must not keep the process */
    _Unwind_Backtrace(frame, &count);
    dprintf(2, "\nggml-rpc-ref end of stack\n");
    raise(number);
}

__attribute__((constructor)) static void install(void) {
    int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    stack_t own = {.ss_sp = room, .ss_size = sizeof room};
    const char *memory = getenv("GGML_RPC_REF_MEMORY");
    struct rlimit limit;
    /* not in a process with AddressSanitizer, which maps terabytes; the hard limit stays, so that this one may become such a one */
    if (memory && !dlsym(RTLD_DEFAULT, "__asan_init") && getrlimit(RLIMIT_AS, &limit) == 0) {
        limit.rlim_cur = strtoull(memory, 0, 10);
        setrlimit(RLIMIT_AS, &limit);
    }
    sigaltstack(&own, 0);
    _Unwind_Backtrace(warm_up, 0); /* what it allocates at its first use it must not allocate from a broken heap */
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER};
        sigaction(numbers[i], &action, 0);
    }
}

/* ---- a fresh server in a millisecond: the first accept() while there is one thread forks, and forks again when a child died */

static int threads(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/task");
    for (struct dirent *entry; directory && (entry = readdir(directory));) count += entry->d_name[0] != '.';
    if (directory) closedir(directory);
    return count;
}

static void keep_forking(void) {
    static int done;
    if (done || !getenv("GGML_RPC_REF_FORK") || threads() != 1) return;
    done = 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the fuzzer, or its worker, may be killed */
    for (int early = 0; early < 20;) {
        struct timespec begun, ended;
        int status = 0;
        clock_gettime(CLOCK_MONOTONIC, &begun);
        pid_t child = fork();
        if (child < 0) return;
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            dprintf(2, "\nggml-rpc-ref serves as %d\n", (int) getpid());
            return;
        }
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        dprintf(2, "\nggml-rpc-ref died by %d\n", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
        clock_gettime(CLOCK_MONOTONIC, &ended);
        early = (ended.tv_sec - begun.tv_sec) * 1000 + (ended.tv_nsec - begun.tv_nsec) / 1000000 < 5 ? early + 1 : 0;
    }
    _exit(1);
}

int accept(int fd, struct sockaddr *address, socklen_t *length) {
    static int (*real)(int, struct sockaddr *, socklen_t *);
    if (!real) real = dlsym(RTLD_NEXT, "accept");
    keep_forking();
    return real(fd, address, length);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    if (!real) real = dlsym(RTLD_NEXT, "accept4");
    keep_forking();
    return real(fd, address, length, flags);
}
"""

FORK: Final = "GGML_RPC_REF_FORK"
"""The variable that makes a server fork."""
_FRAME: Final = re.compile(r"^ggml-rpc-ref frame (\S+)\+(0x[0-9a-f]+) (\S+)$", re.MULTILINE)
_NOT_OURS: Final = re.compile(r"^(libc|libm|libgcc_s|libstdc\+\+|libpthread|ld-linux|linux-vdso|libasan|libubsan|preload)[-.]")
_ABORTS: Final = frozenset({"ggml_abort", "ggml_print_backtrace", "abort", "raise"})
_ASSERT: Final = re.compile(r"([\w.+-]+\.(?:c|cc|cpp|h|hpp|cu|m)):(\d+): (.*)")
_SERVES: Final = re.compile(r"^ggml-rpc-ref serves as (\d+)$", re.MULTILINE)
_SIGNAL: Final = re.compile(r"^ggml-rpc-ref signal (\d+)$", re.MULTILINE)
_DIED: Final = re.compile(r"^ggml-rpc-ref died by (-?\d+)$", re.MULTILINE)
_SANITIZER: Final = re.compile(r"ERROR: \w+Sanitizer: ([\w-]+)")
_UNDEFINED: Final = re.compile(r"([\w.+-]+:\d+):\d+: runtime error: (.+)")
_REPORTED: Final = re.compile(r"^ *#\d+ 0x[0-9a-f]+ in (.+?) \(?((?:/|<)\S+)", re.MULTILINE)
"""A frame of a sanitizer's report: function, and source file with its line, or module."""
_REPORTERS: Final = re.compile(
    r"/libsanitizer/|/(?:python[\d.]*|libpython\S*|libffi\S*|_ctypes\S*|libc\.\S*|libasan\S*|libubsan\S*|ld-\S*)\+0x"
)
"""Frames that are not part of the server: the sanitizer itself, and the Python that a genuine build runs in."""


def build(directory: Path) -> Path | None:
    """Compile the library that prints the stack; None where that can't be done here."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    source, library = directory / "preload.c", directory / "preload.so"
    source.write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return library if done.returncode == 0 else None


def environment(directory: Path, memory: int = 0, *, fork: bool = True) -> dict[str, str]:
    """Return the variables that load it into a server; none where it can't be compiled.

    Args:
        directory: where the library is put; it must outlive the server.
        memory: bytes of address space that the server may have; 0: any.
        fork: whether a server that died is followed by a fork of what it was at its first accept().
    """
    library = build(directory)
    if library is None:
        return {}
    found = {"LD_PRELOAD": f"{library} {os.environ.get('LD_PRELOAD', '')}".strip()}
    if memory:
        found["GGML_RPC_REF_MEMORY"] = str(memory)
    return found | ({FORK: "1"} if fork else {})


def serving(output: str) -> int | None:
    """Return the id of the process that a forking server serves with; None for one that does not fork."""
    found = _SERVES.findall(output)
    return int(found[-1]) if found else None


def died(output: str) -> str:
    """Return how the child of a forking server died, e.g. "SIGSEGV" or "exit 1"; "" where none has."""
    found = _DIED.search(output)
    if found is None:
        return ""
    status, caught = int(found[1]), _SIGNAL.search(output)
    if caught and status == -signal.SIGALRM:
        status = -int(caught[1])  # printing the stack took too long
    return signal.Signals(-status).name if status < 0 else f"exit {status}"


def frames(output: str) -> tuple[str, ...]:
    """Return the functions of the server's own on the stack that it printed, or that a sanitizer did, innermost first."""
    if reported := _reported(output):
        return reported
    found = []
    for module, start, name in _FRAME.findall(output):
        if not _NOT_OURS.match(module) and name not in _ABORTS:
            found.append(name if name != "?" else f"{module}+{start}")
    return tuple(found)


def _reported(output: str) -> tuple[str, ...]:
    """Return the functions on the first stack of a sanitizer's report; others say where memory came from."""
    begin = _SANITIZER.search(output) or _UNDEFINED.search(output)
    if begin is None:
        return ()
    first, _, _ = output[output.find("#0 ", begin.end()) :].partition("\n\n")
    return tuple(name for name, where in _REPORTED.findall(first) if not _REPORTERS.search(where) and name not in _ABORTS)


def place(output: str) -> str:
    """Return where a server died: its assertion's file and line, what a sanitizer says and where, or its innermost function."""
    words = [line for line in output.splitlines() if not line.startswith("ggml-rpc-ref ")]
    stack = frames(output)
    if found := _UNDEFINED.search(output):
        return f"{found[1]}: {re.sub(r'-?[0-9]+', '#', found[2])[:60]}"
    if (found := _SANITIZER.search(output)) and found[1] != "ABRT":
        return f"{found[1]} in {stack[0]}" if stack else found[1]
    for line in reversed(words):
        if found := _ASSERT.search(line):
            return f"{found[1]}:{found[2]}"
    return stack[0] if stack else ""


def last_words(output: str) -> str:
    """Return the last line that a server printed of its own, without directories: of a sanitizer's report the first."""
    if report := _UNDEFINED.search(output) or _SANITIZER.search(output):
        if not report[0].endswith("ABRT"):
            return report[0][:200]
        output = re.sub(r"^(=+|AddressSanitizer:DEADLYSIGNAL|==\d+==)$", "", output[: report.start()], flags=re.MULTILINE)
    words = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("ggml-rpc-ref ")]
    return re.sub(r"\S*/(?=[^/\s]+:\d+: )", "", words[-1])[:200] if words else ""
