"""Known vulnerabilities in what is installed beside hf-tuner, by pip-audit, and an honest word where nobody could look.

pip-audit says "No known vulnerabilities found" of packages it could not look up as well, which is how an audit without
the advisory database always passes. Exit 1 for a vulnerability, 0 otherwise: what was not looked up is said.
"""

import json
import subprocess
import sys
from typing import Any

UNREACHED = "skipped: advisory database not reachable"
SECONDS = 300


def verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit code and lines to print for pip-audit's JSON report."""
    packages = report["dependencies"]
    audited = [p for p in packages if "vulns" in p]
    found = [
        f"{p['name']} {p['version']}: {v['id']}"
        + (f", mended in {', '.join(v['fix_versions'])}" if v.get("fix_versions") else ", not mended yet")
        for p in audited
        for v in p["vulns"]
    ]
    if found:
        return 1, [*found, f"{len(found)} known vulnerabilities in {len(audited)} packages"]
    left = len(packages) - len(audited)
    if not audited:
        return 0, [f"{UNREACHED} (it knew none of {left} packages)"]
    aside = f"; {left} were not looked up" if left else ""
    return 0, [f"no known vulnerability in {len(audited)} packages{aside}"]


def main() -> int:
    """Audit the environment of this interpreter."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        report = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        print(f"{UNREACHED} (no answer in {SECONDS} s)")
        return 0
    except json.JSONDecodeError:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if "No module named" in reason:
            print(f"pip-audit is not installed: {reason}")
            return 1
        print(f"{UNREACHED} ({reason[:200]})")
        return 0
    code, lines = verdict(report)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
