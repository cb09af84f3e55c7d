"""What of a run's folder goes to the Hub: an allow-list of files, without local paths, searched for secrets.

A published run is a folder of its own, made beside the run and uploaded as it is: weights and processor as they were
saved, settings and report without this machine's paths, and a card that knows its repository. Left out are checkpoints,
optimiser states and every pickle, logs, and the report's page, which quotes rows of the data.
"""

import json
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from huggingface_hub import get_token

from hf_tuner.errors import ArtifactError
from hf_tuner.hub.card import card, read_facts
from hf_tuner.hub.files import PLAIN, public_files
from hf_tuner.hub.manifest import FILE, Manifest, check_files, damage, file_digests, read_manifest
from hf_tuner.hub.markdown import PATH
from hf_tuner.models.save import check_tensors
from hf_tuner.plain_yaml import read_yaml


@contextmanager
def published(folder: Path, **facts: Any) -> Iterator[Path]:
    """A temporary folder that holds the publishable form of a finished run.

    `facts` are what the card should know beyond the folder: repo, revision, subfolder, licence, languages. Raises
    ArtifactError when the run is not finished, was damaged, or something secret would leave with it.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest.files)
    with TemporaryDirectory(prefix=".publishing-", dir=folder) as name:
        aside = Path(name)
        for path in sorted({*public_files(folder), *map(Path, processor_files(manifest))}):
            if any((folder / part).is_symlink() for part in (path, *path.parents[:-1])):
                raise ArtifactError(
                    f"{path} of {folder} is a link: nothing was pushed. Put the file itself in its place"
                )
            target = aside / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".safetensors":
                os.link((folder / path).resolve(), target)  # never rewritten, and may be large
            else:
                shutil.copyfile(folder / path, target)
        check_tensors(aside)
        with damage(folder, "report.json or run.yaml"):
            clean_texts(aside)
            clean = Manifest(**without_paths(vars(manifest)) | {"files": file_digests(aside, manifest.files)})
            (aside / FILE).write_text(clean.text(), encoding="utf-8")
            _write_card(folder, aside, facts)
        refuse_secrets(aside, folder)
        yield aside


def processor_files(manifest: Manifest) -> list[str]:
    """Files that the run's own processor saved under names of its own: plain text and sentencepiece models only."""
    return [name for name in manifest.files if Path(name).suffix in PLAIN and ".." not in name]


def clean_texts(folder: Path) -> None:
    """Take this machine's paths out of the JSON and YAML files of a folder: of each path its last part is left."""
    for path in sorted(folder.glob("*.json")):
        if path.name in ("tokenizer.json", "vocab.json"):
            continue  # a vocabulary may hold anything that looks like a path
        data = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(without_paths(data), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    settings = folder / "run.yaml"
    if settings.is_file():
        data = without_paths(read_yaml(settings, wrong=ArtifactError))
        head = "# Every setting of the run, as `hf-tuner METHOD --config run.yaml` reads it.\n"
        settings.write_text(head + yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def without_paths(value: Any) -> Any:
    """The same data with every absolute path shortened to its last part."""
    if isinstance(value, str):
        return PATH.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {k: v if k in ("labels", "id2label", "label2id") else without_paths(v) for k, v in value.items()}
    return [without_paths(v) for v in value] if isinstance(value, list) else value


def refuse_secrets(folder: Path, run: Path) -> None:
    """Search every byte of a folder for the token and for this machine's folders. Raises ArtifactError, naming the file."""
    secrets = {"the token": get_token() or "", "HF_TOKEN": os.environ.get("HF_TOKEN", "")}
    places = {f"the path {p}": str(p) for p in {run.resolve(), Path.cwd(), Path.home()} if len(p.parts) > 2}
    wanted = {what: text.encode() for what, text in (secrets | places).items() if len(text) > 6}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for what, text in wanted.items():
                if content.find(text) >= 0:
                    raise ArtifactError(
                        f"{path.relative_to(folder)} contains {what}: nothing was pushed. Take it out of the run's folder, "
                        "or out of the data's labels and names, and push again"
                    )


def _write_card(folder: Path, aside: Path, facts: Mapping[str, Any]) -> None:
    (aside / "README.md").write_text(card(read_facts(folder, **facts)), encoding="utf-8")
