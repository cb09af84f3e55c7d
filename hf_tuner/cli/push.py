"""push: put a finished run on the Hub, verified; running it again resumes, updates or does nothing."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_tuner.cli._words import Words
from hf_tuner.errors import ArtifactError
from hf_tuner.plain_yaml import read_yaml


def main(words: Sequence[str]) -> None:
    """hf-tuner push RUN [--hub-model-id user/name] [--hub-private-repo] [--hub-revision BRANCH | --create-pr]"""
    parser = Words("push", __doc__).code()
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or of a merged model")
    parser.add_argument(
        "--hub-model-id", "--hub_model_id", help="user/name (default: the folder's name, of your own user)"
    )
    parser.add_argument("--hub-private-repo", "--private", action="store_true", default=None, help="make it private")
    parser.add_argument("--hub-revision", "--revision", help="branch to push to (made when it is not there)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--subfolder", default="", help="folder in the repository: several adapters can share one")
    parser.add_argument("--tag", help="name the commit, such as v1.0")
    seen = parser.read(words)
    from hf_tuner.hub.manifest import read_manifest
    from hf_tuner.hub.preflight import Destination, checked, preflight
    from hf_tuner.hub.push import push

    folder = Path(seen.run)
    read_manifest(folder)
    told = _told(folder)
    to = Destination(
        repo=seen.hub_model_id or told.get("hub_model_id") or re.sub(r"[^\w.-]+", "-", folder.resolve().name),
        revision=seen.hub_revision or (None if seen.create_pr else told.get("hub_revision")),
        private=told.get("hub_private_repo") if seen.hub_private_repo is None else seen.hub_private_repo,
        create_pr=seen.create_pr,
        subfolder=seen.subfolder.strip("/"),
        tag=seen.tag,
    )
    push(folder, preflight(checked(to)))


def _told(folder: Path) -> dict[str, Any]:
    """What the run itself was told about its push; flags beat it."""
    settings = folder / "run.yaml"
    return read_yaml(settings, wrong=ArtifactError) if settings.is_file() else {}
