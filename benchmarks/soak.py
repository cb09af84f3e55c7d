"""Kill a run again and again at random moments, start it again each time, and compare what it ends with.

    python benchmarks/soak.py --kills 200 --push
    python benchmarks/soak.py --kills 30 --method full
    python benchmarks/soak.py --kills 30 --processes 2

The run trains the tests' tiny model for about a minute, with frequent saves and evaluations and, with --push, a Hub on
this machine to which every save goes. It must end with the bytes of the run that nobody killed, in a folder of bounded
size, with no process left over.
"""

import argparse
import hashlib
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
MOMENTS = {
    "starting": "", "loading": "hf-tuner:", "preparing": "data  ", "training": "  training", "measuring": "complete; measuring",
}  # fmt: skip
"""When a run is killed: a random while after it has said this."""
FOLDERS = {"saving": ".saving-*", "pushing": ".pushing-*"}
"""When a run is killed: as soon as there is such a folder."""
WHILE = 1.5
"""Seconds; a run trains some forty steps in it, and saves every twenty."""


def main() -> int:
    """Run the soak and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how often the run is killed")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--push", action="store_true", help="push every save to a Hub on this machine")
    asked = parser.parse_args()
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    from conftest import make_tiny_model, write_rows
    from fork_server import ForkServer
    from hub_client import environment
    from hub_server import Hub

    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        (here / "data").mkdir()
        (here / "model").mkdir()
        write_rows(here / "data" / "train.csv", 240, seed=1)
        write_rows(here / "data" / "test.csv", 48, seed=2)
        make_tiny_model(here / "model", dropout=0.1)
        with Hub(here / "hub").serve() if asked.push else nullcontext() as hub:
            if hub is not None:
                online = environment(hub, here / "home")
                os.environ.clear()
                os.environ.update(online)
            server = ForkServer(here / "forks")
            try:
                return Soak(server, here, asked).run()
            finally:
                server.close()


class Soak:
    """One run that is killed, beside one that is not."""

    def __init__(self, server: Any, here: Path, asked: argparse.Namespace) -> None:
        self.server, self.here, self.asked = server, here, asked
        self.folder, self.whole = here / "killed", here / "whole"
        self.dice = random.Random(asked.seed)
        self.moments: Counter[str] = Counter()
        self.sessions: set[int] = set()
        self.largest = 0

    def run(self) -> int:
        """0 when the killed run ends as the other one did."""
        asked, begun = self.asked, time.monotonic()
        self.finish(self.start(self.whole))
        print(f"uninterrupted: {time.monotonic() - begun:.0f} s, {asked.steps} steps, {asked.processes} process(es), "
              f"{asked.method}", flush=True)  # fmt: skip
        kills = 0
        while kills < asked.kills:
            if not self.kill(kills):
                break  # it was finished before it was killed
            kills += 1
            if kills % 20 == 0:
                print(f"  {kills} kills, step {self.reached()}, {time.monotonic() - begun:.0f} s", flush=True)
        self.finish(self.start(self.folder))
        same = digest(self.folder) == digest(self.whole)
        left = orphans(self.sessions)
        print(f"{kills} kills in {time.monotonic() - begun:.0f} s; killed while: {dict(self.moments)}")
        print(f"final weights byte-identical to the uninterrupted run: {same}")
        print(f"folder at most {self.largest / 1e6:.1f} MB, uninterrupted {size(self.whole) / 1e6:.1f} MB; "
              f"processes left over: {len(left)} {left or ''}")  # fmt: skip
        return 0 if same and not left and kills == asked.kills else 1

    def kill(self, kills: int) -> bool:
        """Start, wait for a random moment, kill. False when the run ended by itself."""
        moment = self.moment(kills)
        children = self.start(self.folder)
        self.sessions |= {child.pid for child in children}
        seen = self.wait_for(moment, children[0])
        if self.server.ask({"over": children[0].pid})["over"]:
            self.finish(children)
            return False
        for child in children:
            child.send(signal.SIGKILL)
        for child in children:
            child.wait()
        self.moments[moment if seen else "measuring"] += 1
        self.largest = max(self.largest, size(self.folder))
        return True

    def moment(self, kills: int) -> str:
        """Training and saving while the run is behind its kills, so that both end together; else something before."""
        if self.reached() <= self.asked.steps * kills / self.asked.kills:
            return self.dice.choice(["training", "training", "saving", *(["pushing"] if self.asked.push else [])])
        return self.dice.choice(["starting", "loading", "preparing"])

    def wait_for(self, moment: str, child: Any) -> bool:
        """Wait until it is the moment, and a random while; False when training was over before."""
        end = time.monotonic() + 120
        while time.monotonic() < end and not self.server.ask({"over": child.pid})["over"]:
            text = child.text()
            if moment in FOLDERS and list(self.folder.glob(FOLDERS[moment])):
                return True
            if moment in MOMENTS and MOMENTS[moment] in text:
                time.sleep(self.dice.uniform(0.0, WHILE if moment == "training" else WHILE / 5))
                return True
            if MOMENTS["measuring"] in text or "saved, NOT" in text:
                return False
            time.sleep(0.002)
        return False

    def reached(self) -> int:
        """Step of the newest checkpoint."""
        names = [p.name.rpartition("-")[2] for p in self.folder.glob("checkpoint-*")]
        return max((int(n) for n in names if n.isdigit()), default=0)

    def start(self, folder: Path) -> list[Any]:
        """Start the run: one child for each process."""
        asked = self.asked
        words = [asked.method, "--model", self.here / "model", "--dataset", self.here / "data", "--eval-split", "20%",
                 "--output-dir", folder, "--no-verify", "--max-steps", asked.steps, "--per-device-train-batch-size", 4,
                 "--save-strategy", "steps", "--save-steps", 20, "--eval-strategy", "steps", "--eval-steps", 60,
                 "--dataloader-num-workers", 1, "--bf16", "false"]  # fmt: skip
        if asked.push:
            words += ["--push-to-hub", "--hub-model-id", folder.name, "--hub-strategy", "every_save"]
        if asked.processes == 1:
            return [self.server.start(words)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {"WORLD_SIZE": str(asked.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [str(rank) for rank in range(asked.processes)]
        return [self.server.start(words, RANK=rank, LOCAL_RANK=rank, **world) for rank in ranks]

    def finish(self, children: list[Any]) -> None:
        """Wait for an end without a kill. Raises RuntimeError with what was printed when it is not a good one."""
        if any(child.wait(900) for child in children):
            raise RuntimeError("".join(child.text() for child in children))


def digest(folder: Path) -> str:
    """sha256 of the weights."""
    return hashlib.sha256(next(folder.glob("*model.safetensors")).read_bytes()).hexdigest()


def size(folder: Path) -> int:
    """Bytes in a folder."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file())


def orphans(sessions: set[int]) -> list[str]:
    """Processes that killed runs have left: data workers and whatever else they had started, in their sessions."""
    end = time.monotonic() + 10
    while left := list(_alive(sessions)):
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    return left


def _alive(sessions: set[int]) -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(session) in sessions and state != "Z":
                yield entry.name


if __name__ == "__main__":
    sys.exit(main())
