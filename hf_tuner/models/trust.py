"""Code of somebody else is run only from one commit of one repository, and only when it was asked for.

What was asked for is kept in the environment of this process, so that the processes it starts (ranks, the fresh one
that proves a saved run) may load the same; no file remembers it.
"""

import os
import re
from pathlib import Path

from hf_tuner.config import Run
from hf_tuner.errors import ArtifactError, UsageError

VARIABLE = "HF_TUNER_TRUSTED"
ANY = "*"
"""The pinned base of whatever run this command was given."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def allow(source: str = ANY, commit: str = "") -> None:
    """Let this process and those it starts run the code of a repository at a commit."""
    asked = os.environ.get(VARIABLE, "").split()
    name = f"{source}@{commit}" if commit else source
    if name not in asked:
        os.environ[VARIABLE] = " ".join([*asked, name])


def is_trusted(source: str, commit: str | None) -> bool:
    """Whether the code of a repository may be run: it lies on the Hub, its commit is pinned, and it was asked for."""
    if commit is None or not COMMIT.fullmatch(commit) or Path(source).is_dir():
        return False
    asked = os.environ.get(VARIABLE, "").split()
    return ANY in asked or f"{source}@{commit}" in asked


def accept(run: Run) -> None:
    """Act on `--trust-remote-code`. Raises UsageError unless model and commit are named, before anything is fetched."""
    if not run.trust_remote_code:
        return
    if Path(run.model).expanduser().is_dir() or run.model == "demo":
        raise UsageError("--trust-remote-code: a folder has no commit, so nothing says that its code is the code you read; "
                         "push it to the Hub and name the commit with --model-revision")  # fmt: skip
    if not COMMIT.fullmatch(run.model_revision or ""):
        raise UsageError(f"--trust-remote-code runs the code of {run.model} on this machine: read it, and name the commit you "
                         f"read with --model-revision (40 hexadecimal digits, not {run.model_revision!r})")  # fmt: skip
    allow(run.model, str(run.model_revision))


def require_consent(base: str, commit: str | None, code: bool, run: Path) -> None:
    """Raise ArtifactError for a saved run whose base needs code that this command was not told to run."""
    if code and not is_trusted(base, commit):
        raise ArtifactError(f"{run}: its base {base} brings code of its own (commit {commit}), which is not run unasked; "
                            "read it there, then add --trust-remote-code")  # fmt: skip
