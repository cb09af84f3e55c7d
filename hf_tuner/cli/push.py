"""push: put a finished run on the Hub, verified; running it again resumes, updates or does nothing."""

from collections.abc import Sequence
from pathlib import Path

from hf_tuner.cli._words import Words


def main(words: Sequence[str]) -> None:
    """hf-tuner push RUN [--hub-model-id user/name] [--hub-private-repo] [--hub-revision BRANCH | --create-pr]"""
    parser = Words("push", __doc__)
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
    name = seen.hub_model_id or _repository_name(folder)
    to = Destination(repo=name, revision=seen.hub_revision, private=seen.hub_private_repo, create_pr=seen.create_pr,
                     subfolder=seen.subfolder.strip("/"), tag=seen.tag)  # fmt: skip
    push(folder, preflight(checked(to)))


def _repository_name(folder: Path) -> str:
    """The name the run was told for its own push, else that of its folder."""
    import re

    import yaml

    settings = folder / "run.yaml"
    told = yaml.safe_load(settings.read_text(encoding="utf-8")).get("hub_model_id") if settings.is_file() else None
    return told or re.sub(r"[^\w.-]+", "-", folder.resolve().name)
