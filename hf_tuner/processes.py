"""Several processes on this machine: started together, watched, ended together, with one last line that says why.

On a CPU, and for several GPUs without a configuration, this process starts the ranks itself: `accelerate launch` with
a multi-CPU configuration and no MPI silently starts one process, and torch.distributed.run buries the cause under its
own report. A configuration for accelerate goes to accelerate's launcher, as a child that is watched the same way.
"""

import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.console import say, warn
from hf_tuner.errors import Ended, EnvironmentFault, UsageError
from hf_tuner.faults import FOLDER, Fault, cause, die_with_parent, goes_on_from, leave, left_in
from hf_tuner.plain_yaml import read_yaml

LAUNCHED = "HF_TUNER_LAUNCHED"
"""Set for every process that a launcher of ours starts."""
GRACE = 15.0
"""Seconds the other processes get to end by themselves once one has failed."""
HURRY = 5.0
"""Seconds they get after a second signal."""
TICK = 0.05


@dataclass
class Children:
    """The processes of a run and what happened to them; `rank` is None for a launcher, which has ranks of its own."""

    started: list[tuple[int | None, subprocess.Popen]] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    silent: list[int] = field(default_factory=list)

    def running(self) -> list[tuple[int | None, subprocess.Popen]]:
        """Those that have not ended."""
        return [(rank, child) for rank, child in self.started if child.poll() is None]

    def failed(self) -> bool:
        """True when one has ended otherwise than well, or than by the signal that was passed on."""
        wanted = {0, *(128 + n for n in self.signals), *(-n for n in self.signals)}
        return any(child.poll() not in (None, *wanted) for _, child in self.started)

    def killed(self) -> dict[int, int]:
        """Rank → signal of those that a signal ended which did not come from here."""
        ended = {rank: -child.returncode for rank, child in self.started if rank is not None and child.returncode < 0}
        return {rank: number for rank, number in ended.items() if rank not in self.silent}

    def pass_on(self, number: int, frame: FrameType | None = None) -> None:
        """Signal handler: every process gets the signal once."""
        self.signals.append(number)
        for _, child in self.running():
            child.send_signal(number)

    def end(self) -> None:
        """Kill what is left, with whatever it has started."""
        for rank, child in self.running():
            self.silent += [rank] if rank is not None else []
            _kill(child)
            child.wait()


def wants_processes(run: Run) -> bool:
    """True when this process must start others."""
    return not {"RANK", LAUNCHED} & set(os.environ) and (
        (run.num_processes or 1) > 1 or run.accelerate_config is not None
    )


def run_processes(run: Run, script: Path, words: Sequence[str]) -> None:
    """Start the same script with the same words in several processes and wait for all of them.

    Raises Ended with the exit code and the message of the process that failed first.
    """
    config = launcher_config(run.accelerate_config) if run.accelerate_config else None
    _require_launcher(config)
    count = run.num_processes or _processes_of(config)
    cores = len(os.sched_getaffinity(0))
    say(f"hf-tuner: {count} processes")
    if count > cores and (config is None or _on_cpu(config)):
        warn(f"{count} processes on {cores} CPU cores take turns; --num-processes {cores} would be faster")
    sys.stdout.flush()
    children = Children()
    with tempfile.TemporaryDirectory(prefix="hf-tuner-") as folder, _forwarding(children):
        shared = {"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, LAUNCHED: "1", FOLDER: folder}
        shared.setdefault("OMP_NUM_THREADS", str(max(1, cores // max(1, count))))
        try:
            for rank, line, own in _commands(run, config, count, [str(script), *words]):
                environment = {**shared, **own}
                child = subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
                children.started.append((rank, child))
            _wait(children)
        finally:
            children.end()
        _conclude(children, left_in(Path(folder)), goes_on_from(run.folder))


def launcher_config(name: str) -> Path:
    """File of a bundled accelerate configuration, or a YAML file given by path. Raises UsageError for neither."""
    if Path(name).is_file():
        return Path(name)
    folder = catalog.folder("accelerate_configs")
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    if name not in known:
        raise UsageError("--accelerate-config: " + catalog.unknown("configuration", name, known))
    return folder / f"{name}.yaml"


def _commands(
    run: Run, config: Path | None, count: int, script: list[str]
) -> Iterator[tuple[int | None, list[str], dict[str, str]]]:
    """Rank, command line and environment of each process to start."""
    if config is not None and not _on_cpu(config):
        number = [f"--num_processes={count}"] if run.num_processes else []
        yield None, [sys.executable, "-P", "-m", __name__, f"--config_file={config}", *number, *script], {}
        return
    port = str(_free_port())
    for rank in range(count):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
        own = {**{k: str(v) for k, v in place.items()}, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        if config is not None:
            own["ACCELERATE_USE_CPU"] = "true"
            own["ACCELERATE_MIXED_PRECISION"] = str(_read(config).get("mixed_precision") or "no")
        yield rank, [sys.executable, *script], own


def _wait(children: Children) -> None:
    """Until every process has ended; those that outlive a failed one, or a second signal, for too long are killed."""
    since: float | None = None
    while children.running():
        time.sleep(TICK)
        hurried = len(children.signals) > 1
        left = children.signals and any(child.poll() is not None for _, child in children.started)
        if since is None and (hurried or left or children.failed()):
            since = time.monotonic()
        if since is not None and time.monotonic() - since > (HURRY if hurried else GRACE):
            children.end()


def _conclude(children: Children, faults: list[Fault], goes_on: str) -> None:
    """Raise Ended with what went wrong; nothing when every process ended well."""
    if all(child.returncode == 0 for _, child in children.started):
        return
    told = [f for f in faults if not f.killed_by]
    killed = {**children.killed(), **{f.rank: f.killed_by for f in faults if f.killed_by and f.rank is not None}}
    killed = {rank: number for rank, number in killed.items() if number not in children.signals}
    silent = [r for r in children.silent if r not in {f.rank for f in told}]
    hard = [number for number in killed.values() if number not in (signal.SIGABRT, signal.SIGTERM)]
    if children.signals and not hard and not any(not f.victim for f in told):
        number = children.signals[0]
        raise Ended(128 + number, f"stopped by {signal.Signals(number).name}; {goes_on}")
    found = cause(told, killed, silent, goes_on)
    if found.trace:
        print(found.trace, file=sys.stderr, flush=True)
    raise Ended(found.code, found.message)


@contextmanager
def _forwarding(children: Children) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the processes, once: they are not in this process's group."""
    before = {number: signal.signal(number, children.pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill(child: subprocess.Popen) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _require_launcher(config: Path | None) -> None:
    """Raise EnvironmentFault when a configuration asks for what is not installed here."""
    deepspeed = config is not None and _read(config).get("distributed_type") == "DEEPSPEED"
    if config is not None and deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise EnvironmentFault(f'{config.name} needs DeepSpeed: pip install "hf-tuner[deepspeed]"')


def _processes_of(config: Path | None) -> int:
    return int(_read(config).get("num_processes") or 1) if config else 1


def _on_cpu(config: Path) -> bool:
    data = _read(config)
    return bool(data.get("use_cpu")) or data.get("distributed_type") == "MULTI_CPU"


def _read(config: Path) -> dict[str, Any]:
    return read_yaml(config, "--accelerate-config ")


def accelerate() -> None:
    """accelerate's launcher without its own report: what its processes died of is left for the parent."""
    from accelerate.commands.launch import main

    die_with_parent()
    logging.disable(logging.ERROR)
    for number in (signal.SIGINT, signal.SIGTERM):  # what starts one process would end before it
        signal.signal(number, _relay)
    try:
        main()
    except Exception as error:
        failures = getattr(error, "failures", {})
        ended = {rank: failure.exitcode for rank, failure in failures.items()}
        ended |= {0: error.returncode} if isinstance(error, subprocess.CalledProcessError) else {}
        for rank, code in ended.items():
            if code < 0:
                leave(Fault(rank, 3, "killed", time.time(), killed_by=-code))
        if not ended and type(error).__name__ != "SignalException":
            leave(Fault(None, 3, f"accelerate's launcher: {str(error).splitlines()[0]}", time.time()))
        sys.exit(1)


def _relay(number: int, frame: FrameType | None) -> None:
    import psutil

    for child in psutil.Process().children():
        child.send_signal(number)


if __name__ == "__main__":
    accelerate()
