"""Runs of `hf-tuner` that start in a tenth of a second: one process imports everything, each run is a fork of it.

A run may be given a patch, "module:function": called in the child before anything else, to kill it at a chosen place.
"""

import functools
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
POLL = 0.02


@dataclass
class Child:
    """One run: its process, and the files its output goes to."""

    server: "ForkServer"
    pid: int
    out: Path
    err: Path
    code: int | None = None

    def send(self, number: int) -> None:
        """Send a signal to the run's own process."""
        if self.code is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = 120) -> int:
        """The exit code as a shell gives it: 128 + N when signal N ended the run."""
        if self.code is None:
            self.code = self.server.ask({"wait": self.pid, "timeout": timeout})["code"]
        return self.code

    def wait_for(self, happened: Any, timeout: float = 60) -> None:
        """Wait until `happened()` is true. Raises TimeoutError with what the run printed."""
        end = time.monotonic() + timeout
        while not happened():
            if time.monotonic() > end or self.server.ask({"over": self.pid})["over"]:
                raise TimeoutError(self.text())
            time.sleep(POLL)

    def text(self) -> str:
        """Everything printed, errors last."""
        # Killed at once, a child has not even opened them.
        return "".join(path.read_text() for path in (self.out, self.err) if path.is_file())


@dataclass
class ForkServer:
    """The process that forks, started when it is first needed. Close it when done."""

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: _environment())
    """Variables that the process starts with: those of now, whatever a test sets before the first run."""
    count: int = 0

    @functools.cached_property
    def process(self) -> subprocess.Popen:
        """The process, which has imported everything when it answers first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, __file__], env=self.environment, **pipes)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and read its answer."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def start(
        self, words: Sequence[object], patch: str = "", entry: str = "hf_tuner.cli.main", cwd: Path | None = None,
        **environment: str,
    ) -> Child:  # fmt: skip
        """Start `main` of the module `entry` (that of `hf-tuner`), or a script, with words."""
        self.count += 1
        out, err = self.folder / f"{self.count}.out", self.folder / f"{self.count}.err"
        request = {"words": list(map(str, words)), "out": str(out), "err": str(err), "patch": patch, "entry": entry,
                   "env": environment, "cwd": str(cwd or Path.cwd())}  # fmt: skip
        return Child(self, self.ask(request)["pid"], out, err)

    def run(self, words: Sequence[object], patch: str = "", **environment: str) -> tuple[int, str]:
        """Exit code and everything printed by `hf-tuner` with words."""
        child = self.start(words, patch, **environment)
        return child.wait(), child.text()

    def close(self) -> None:
        """End the server, if it was needed."""
        if "process" not in vars(self):
            return
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)


def _environment() -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**{k: v for k, v in os.environ.items() if k != "TRANSFORMERS_VERBOSITY"}, **threads}


def serve() -> None:
    """Answer requests until the pipe is closed."""
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    from hf_tuner.launching import quiet

    quiet()  # as `hf-tuner` does before anything heavy is imported
    import torch
    from forked_ranks import install

    from hf_tuner import catalog

    install()
    torch.set_num_threads(1)
    importlib.import_module("hf_tuner.training.fit")
    importlib.import_module("hf_tuner.report.plots").figures = lambda details: {}  # half of a tiny run's time
    catalog.load("recipes", "text-classification")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "words" in request:
            answer: dict[str, Any] = {"pid": _fork(request)}
        elif "over" in request:
            answer = {"over": _reap(request["over"], ended) is not None}
        else:
            answer = {"code": _wait(request["wait"], request["timeout"], ended)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _fork(request: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        for number, path in ((1, request["out"]), (2, request["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        if request["patch"]:
            module, _, call = request["patch"].partition(":")
            name, _, argument = call.partition("=")
            getattr(importlib.import_module(module), name)(*([argument] if argument else []))
        code = _main(request["entry"], request["words"])
    finally:
        sys.stdout.flush()
        os._exit(code)


def _main(entry: str, words: Sequence[str]) -> int:
    import traceback

    try:
        if entry.endswith(".py"):
            sys.argv = [entry, *words]
            runpy.run_path(entry, run_name="__main__")
        else:
            importlib.import_module(entry).main(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _reap(pid: int, ended: dict[int, int]) -> int | None:
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            ended[pid] = code if code >= 0 else 128 - code
    return ended.get(pid)


def _wait(pid: int, timeout: float, ended: dict[int, int]) -> int:
    end = time.monotonic() + timeout
    while (code := _reap(pid, ended)) is None:
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            end = float("inf")
        time.sleep(POLL)
    return code


if __name__ == "__main__":
    serve()
