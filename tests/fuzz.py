"""Fuzz for as long as one likes: `make fuzz MINUTES=10`, or `python tests/fuzz.py MINUTES [TARGET …]`.

Every target gets an equal share of the time. A failure is printed with its smallest example, once for each place in the
code; copy that example into tests/test_fuzz.py when it is mended.
"""

import faulthandler
import os
import re
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz_targets import TARGETS, Hang
from hypothesis import HealthCheck, Phase, given, seed, settings

ROUND = 300
"""Examples a round; each round has a seed of its own."""


def signature(error: BaseException) -> str:
    """What and where: failures with the same signature are one finding."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/hf_tuner/" in f.filename]
    inner = traceback.extract_tb(error.__traceback__)[-1]
    at = frames[-1] if frames else inner
    said = re.sub(r"\d+", "N", str(error).split(":")[0])[:60] if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} {said} at {Path(at.filename).name} in {at.name} ({Path(inner.filename).name} in {inner.name})"


def fuzz(name: str, minutes: float, known: Counter[str]) -> int:
    """Run one target for that long; print new failures; returns how many examples were tried."""
    target, tried = TARGETS[name], 0
    strategy, end, number = target.strategy(), time.monotonic() + 60 * minutes, time.time_ns() % 2**31
    while time.monotonic() < end:
        number += 1

        def attempt(example: object) -> None:
            nonlocal tried
            tried += 1
            try:
                target.check(example)
            except (Exception, Hang) as error:
                mark = f"{name}: {signature(error)}"
                known[mark] += 1
                if known[mark] == 1:
                    print(f"\n=== {mark}\n    {str(error)[:400]}\n    example: {str(example)[:1500]!r}\n", flush=True)
                    traceback.print_exception(error, limit=-6, file=sys.stdout)
            except BaseException as error:  # a panic of a library written in Rust
                if isinstance(error, KeyboardInterrupt | SystemExit) or type(error).__module__.startswith("hypothesis"):
                    raise
                mark = f"{name}: {type(error).__name__}"
                known[mark] += 1
                if known[mark] == 1:
                    print(f"\n=== {mark}\n    {str(error)[:400]}\n    example: {str(example)[:1500]!r}\n", flush=True)

        run = settings(max_examples=ROUND, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
                       suppress_health_check=list(HealthCheck))(seed(number)(given(strategy)(attempt)))  # fmt: skip
        run()
    return tried


def main(words: list[str]) -> int:
    """Fuzz the targets named, or all; the exit code says whether something was found."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
    faulthandler.enable()
    from hf_tuner.launching import quiet

    quiet()
    minutes, names = float(words[0]) if words else 1.0, words[1:] or list(TARGETS)
    known: Counter[str] = Counter()
    for name in names:
        began = time.process_time()
        tried = fuzz(name, minutes / len(names), known)
        print(f"{name:<10} {tried:>8,} examples in {time.process_time() - began:.0f} s of processor time", flush=True)
    for mark, times in known.most_common():
        print(f"* {times:>6} × {mark}")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
