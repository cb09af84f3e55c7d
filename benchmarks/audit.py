"""How long `hf-tuner check` takes with a large CSV, and how much memory: rows, seconds, rows a second, peak memory.

    python benchmarks/audit.py --rows 5000000

The file is written first (about 60 characters a row), into a temporary folder that is removed afterwards.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = "rain sun wind cloud storm snow fog warm cold sky bread soup apple cheese rice salad cake bean milk egg".split()
BLOCK = 100_000


def write(path: Path, rows: int) -> None:
    """A CSV of so many rows over five classes; every text is another."""
    dice = random.Random(1)
    lines = [" ".join(dice.choices(WORDS, k=9)) for _ in range(10_000)]
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for start in range(0, rows, BLOCK):
            block = range(start, min(rows, start + BLOCK))
            file.write("".join(f"{lines[i % len(lines)]} {i},{WORDS[i % 5]}\n" for i in block))


def measure(path: Path) -> dict[str, Any]:
    """Check a file in a process of its own: exit code, seconds, peak resident megabytes, and what it printed."""
    start = time.monotonic()
    command = [sys.executable, "-m", "hf_tuner.cli.main", "check", str(path)]
    with tempfile.TemporaryFile("w+") as shown:
        process = subprocess.Popen(command, stdout=shown, stderr=shown, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        shown.seek(0)
        text = shown.read()
    return {
        "code": process.returncode,
        "seconds": round(time.monotonic() - start, 1),
        "peak_mb": round(usage.ru_maxrss / 1e3),
        "text": text,
    }


def main() -> None:
    """Write, check, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.csv"
        write(path, rows)
        size = path.stat().st_size
        found = measure(path)
    sys.stderr.write(found.pop("text"))
    found |= {"rows": rows, "file_mb": round(size / 1e6), "rows_per_second": round(rows / found["seconds"])}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
