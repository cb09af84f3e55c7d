"""The audit of dependencies says what it knows: a vulnerability fails, a database out of reach is not called clean."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CLEAN = {"name": "jinja2", "version": "3.1.6", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited"}
HURT = {"name": "torch", "version": "2.5.0", "vulns": [{"id": "CVE-2026-24747", "fix_versions": ["2.10.0"]}]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([CLEAN, CLEAN], 0, "no known vulnerability in 2 packages"),
        ([CLEAN, UNKNOWN], 0, "no known vulnerability in 1 packages; 1 were not looked up"),
        ([UNKNOWN, UNKNOWN], 0, "skipped: advisory database not reachable (it knew none of 2 packages)"),
        ([CLEAN, HURT], 1, "torch 2.5.0: CVE-2026-24747, mended in 2.10.0"),
    ],
)
def test_the_verdict_is_honest(packages: list[Any], code: int, said: str) -> None:
    spec = importlib.util.spec_from_file_location("audit_of_dependencies", ROOT / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found, lines = module.verdict({"dependencies": packages})
    assert (found, lines[0]) == (code, said)


def test_every_change_is_audited_and_nothing_unsafe_is_ignored() -> None:
    """CI runs the audit; ruff's security rules are on, and each that is ignored has its reason."""
    import tomllib

    assert "make audit" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lint = tomllib.loads(text)["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    ignored = [rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:].isdigit()]
    assert ignored == ["S603"]
    assert all(f'"{rule}", ' in text and "#" in text.split(f'"{rule}"')[1].splitlines()[0] for rule in ignored)
