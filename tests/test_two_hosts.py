"""Two hosts, made of network namespaces: when the cable is cut, both end with a sentence and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import until

RECIPE = Path(__file__).parents[1] / "recipes" / "text_classification.py"
HOSTS = ("hft-a", "hft-b")
STALL = 5


def ip(*words: str) -> None:
    """Run `ip` and raise when it refuses."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def cable() -> Iterator[str]:
    """Two namespaces, 10.77.0.1 and 10.77.0.2, joined by a cable called `cable`; skipped where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    try:
        ip("netns", "add", HOSTS[0])
        ip("netns", "add", HOSTS[1])
        ip("-n", HOSTS[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", HOSTS[1])
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        _remove()
        pytest.skip(f"no network namespaces here: {error}")
    try:
        for number, host in enumerate(HOSTS, 1):
            ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", "cable", "up")
        yield "cable"
    finally:
        _remove()


def _remove() -> None:
    for host in HOSTS:
        subprocess.run(["ip", "netns", "del", host], capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.fault(11, 13)
def test_a_cut_network_ends_both_hosts_with_a_sentence(
    cable: str, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """The same command on both hosts, as docs/distributed.md has it, and then no network."""
    words = ["--model", tiny_model, "--dataset", tiny_data, "--output-dir", tmp_path / "run", "--no-verify", "--probe-rows", 0,
             "--per-device-train-batch-size", 4, "--max-steps", 40000, "--save-strategy", "steps", "--save-steps", 5,
             "--bf16", "false", "--stall-timeout", STALL]  # fmt: skip
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": cable}
    started, outs = [], []
    for number, host in enumerate(HOSTS):
        line = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1",
                f"--node_rank={number}", "--master_addr=10.77.0.1", "--master_port=29577", RECIPE, *words]  # fmt: skip
        outs.append(tmp_path / f"{host}.txt")
        with outs[-1].open("w") as out:
            started.append(
                subprocess.Popen(list(map(str, line)), stdout=out, stderr=out, env=environment, start_new_session=True)
            )
    try:
        until(lambda: list((tmp_path / "run").glob("checkpoint-*/trainer_state.json")), 120)
        ip("-n", HOSTS[0], "link", "set", cable, "down")
        since = time.monotonic()
        said = [until(lambda out=out: _error(out), 60) for out in outs]
        assert time.monotonic() - since < 45
        codes = [process.wait(60) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    for rank, line in enumerate(said):
        assert str(line).startswith(f"error: rank {rank}: "), line
        assert "waited " in str(line) or "another process of this run is gone or cannot be reached" in str(line)
    assert all(codes)


def _error(out: Path) -> str:
    return next((line for line in out.read_text().splitlines() if line.startswith("error: ")), "")
