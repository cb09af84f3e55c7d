"""Where a run lies on the Hub: user/name, user/name@revision, user/name@revision/subfolder, as in `HfFileSystem`.

A slash in a branch's name is written %2F there: user/name@feature%2Fx/subfolder.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from hf_tuner.errors import ArtifactError

SHAPE = re.compile(
    r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/pr/\d+|[^/@]+))?(?:/(?P<subfolder>[\w./-]+))?"
)
LONGEST = 500
"""Characters of an address; no file system takes longer names either."""


@dataclass(frozen=True)
class Address:
    """A repository, the branch, tag or commit in it (None: its main branch), and the folder the run lies in."""

    repo: str
    revision: str | None = None
    subfolder: str = ""

    def __str__(self) -> str:
        name = self.revision or ""
        at = f"@{name if name.startswith('refs/pr/') else name.replace('/', '%2F')}" if name else ""
        return f"{self.repo}{at}" + (f"/{self.subfolder}" if self.subfolder else "")


def parse_address(text: str) -> Address | None:
    """The address that `text` is, or None when it is a local path or the name of nothing on the Hub.

    What exists here is a path, and so is a name below a folder of runs (`runs/mistyped`).
    """
    text = text.removeprefix(f"{constants.ENDPOINT}/")  # as it is copied from a browser
    if len(text) > LONGEST:
        return None
    path = Path(text).expanduser()
    if path.exists() or text.startswith((".", "/", "~")):
        return None
    match = SHAPE.fullmatch(text)
    if match is None or any(Path(text.split("/")[0]).glob("*/manifest.json")):
        return None
    subfolder = (match["subfolder"] or "").strip("/")
    if ".." in subfolder.split("/"):
        raise ArtifactError(f"{text}: a subfolder of a repository cannot contain ..")
    revision = match["revision"]
    return Address(match["repo"], revision.replace("%2F", "/") if revision else None, subfolder)
