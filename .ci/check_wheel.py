"""Look into a built wheel: every file of the package, its recipes and its configurations is there, and it starts.

Usage:
    python .ci/check_wheel.py dist
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = {"hf_tuner": "hf_tuner", "recipes": "hf_tuner/recipes", "accelerate_configs": "hf_tuner/accelerate_configs"}
"""Folder of the checkout → folder of the wheel."""
PROGRAM = """
import hf_tuner, hf_tuner.recipes, hf_tuner.accelerate_configs
from hf_tuner import catalog
from hf_tuner.cli.main import main
for module in (hf_tuner, hf_tuner.recipes, hf_tuner.accelerate_configs):
    assert module.__file__.startswith({folder!r}), module.__file__
assert "text-classification" in catalog.names("recipes")
main(["--help"])
"""


def main() -> None:
    """Check the one wheel in the folder given; exits with a message when something is missing."""
    wheels = list(Path(sys.argv[1]).glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"{sys.argv[1]} holds {len(wheels)} wheels; build exactly one")
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
        expected = wanted()
        if missing := sorted(expected - names):
            sys.exit(f"{wheels[0].name} lacks {len(missing)} files:\n  " + "\n  ".join(missing))
        if extra := sorted(n for n in names - expected if ".dist-info/" not in n):
            sys.exit(f"{wheels[0].name} holds files that are not in the checkout:\n  " + "\n  ".join(extra))
        if not any(n.endswith(".dist-info/licenses/LICENSE") for n in names):
            sys.exit(f"{wheels[0].name} holds no LICENSE")
        with tempfile.TemporaryDirectory() as folder:
            wheel.extractall(folder)
            start(folder)
    print(f"{wheels[0].name}: {len(names)} files, {len(expected)} of them ours, and hf-tuner --help answers")


def wanted() -> set[str]:
    """Paths in the wheel of everything that belongs to the package."""
    return {
        f"{inside}/{path.relative_to(ROOT / outside).as_posix()}"
        for outside, inside in SOURCES.items()
        for path in (ROOT / outside).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def start(folder: str) -> None:
    """Run hf-tuner --help from the unpacked wheel, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", PROGRAM.format(folder=folder)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or "methods:" not in done.stdout:
        sys.exit(f"hf-tuner --help fails from the wheel:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
