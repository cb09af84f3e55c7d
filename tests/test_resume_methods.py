"""Whatever the method keeps, a run that was killed ends as the one that was not."""

from pathlib import Path

import pytest
from fork_server import ForkServer
from test_resume import assert_same, line, model

from hf_tuner import catalog

__all__ = ["model"]

SETTINGS = {
    "miss": ("--r", 8), "shira": ("--r", 4), "peft": ("--peft-type", "hra", "--peft-kwargs", '{"r": 4}'),
    "lora-pissa": ("--init-lora-weights", "pissa"), "lora-eva": ("--init-lora-weights", "eva"),
    "lora-plus": ("--optimizer", "lora-plus"), "full-layers": ("--optimizer", "layerwise-decay"),
}  # fmt: skip
"""What the tiny model needs, and kinds of a method that keep something of their own."""
CASES = sorted({*catalog.names("methods"), *SETTINGS} - {"head-only"})
"""head-only has no steps to be killed at."""


def test_every_method_is_here() -> None:
    assert set(catalog.names("methods")) - set(CASES) == {"head-only"} and len(CASES) > 20


@pytest.mark.fault(1)
@pytest.mark.parametrize("case", CASES)
def test_kill_and_go_on(case: str, forks: ForkServer, model: Path, tiny_data: Path, tmp_path: Path) -> None:
    method = case if case in catalog.names("methods") else case.partition("-")[0]
    few = ("--max-steps", 12, "--save-steps", 5, "--eval-strategy", "no", *SETTINGS.get(case, ()))
    whole, killed = (line(method, model, tiny_data, tmp_path / name, *few) for name in ("whole", "killed"))
    code, text = forks.run(whole)
    assert code == 0, text
    assert forks.run(killed, "crash_points:kill_at_step=8")[0] == 137
    code, text = forks.run(killed)
    assert code == 0 and "going on from" in text, text
    assert_same(tmp_path / "killed", tmp_path / "whole")
