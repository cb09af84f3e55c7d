"""The fast door: help and mistakes are answered before anything heavy is imported."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "datasets", "numpy", "evaluate", "accelerate", "sklearn", "matplotlib")
CODE = """
import sys
from hf_tuner.cli.main import main
try:
    main({words!r})
except SystemExit as stop:
    print("exit", stop.code, file=sys.stderr)
print("heavy", [m for m in {heavy!r} if m in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], None),
        (["lora", "--help"], None),
        (["lroa"], 2),
        (["lora", "--lerning-rate", "1e-4"], 2),
        (["--version"], None),
    ],
)
def test_nothing_heavy_is_imported(words: list[str], code: int | None) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(words=words, heavy=HEAVY)], capture_output=True, text=True)
    assert "heavy []" in done.stderr, done.stderr
    assert ("exit" in done.stderr) == (code is not None)
    if code is not None:
        assert f"exit {code}" in done.stderr and "did you mean" in done.stderr


def test_help_names_every_method() -> None:
    from hf_tuner import catalog
    from hf_tuner.cli.main import overview

    assert len(catalog.names("methods")) > 15
    for name in catalog.names("methods"):
        assert f"  {name} " in overview()
