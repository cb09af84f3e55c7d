"""rerun: the same run again, from its own settings, with the model and the data of the same commits."""

from collections.abc import Sequence
from typing import Any

from hf_tuner import catalog
from hf_tuner.cli._words import Words
from hf_tuner.console import warn
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.plain_yaml import read_yaml

OF_THE_FIRST_RUN = ("output_dir", "overwrite", "resume", "push_to_hub", "create_pr", "logging_dir", "trust_remote_code")
"""Settings that say where the first run went and whom it trusted, not what it did."""


def main(words: Sequence[str]) -> None:
    """hf-tuner rerun RUN [--output-dir FOLDER] [any flag of a run, to change it]"""
    if not words or words[0] in ("-h", "--help"):
        Words("rerun", __doc__).run_folder().read(words)
    name, changes = words[0], list(words[1:])
    if name.startswith("-"):
        raise UsageError("hf-tuner rerun: the run comes first: hf-tuner rerun RUN [--output-dir FOLDER]")
    from tempfile import TemporaryDirectory

    import yaml

    from hf_tuner.hub.manifest import read_manifest
    from hf_tuner.hub.pull import local_run
    from hf_tuner.launching import launch_file

    folder = local_run(name)
    manifest = read_manifest(folder)
    for told in manifest.training.get("changed", []):
        warn(
            f"the run was changed in the middle ({told}); from the start with its last settings it becomes another one"
        )
    settings = read_yaml(folder / "run.yaml", wrong=ArtifactError, words=True)
    again = pinned(
        {k: v for k, v in settings.items() if k not in OF_THE_FIRST_RUN and not k.startswith("hub_")}, manifest
    )
    with TemporaryDirectory() as aside:
        path = f"{aside}/run.yaml"
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(again, file, sort_keys=False, allow_unicode=True)
        _require_same_data(path, changes, manifest)
        load = lambda: catalog.load("recipes", manifest.task).recipe  # noqa: E731
        launch_file(catalog.path("recipes", manifest.task), ["--config", path, *changes], load)


def _require_same_data(path: str, changes: Sequence[str], manifest: Any) -> None:
    """Local data may have changed since: look before training. Raises UsageError, unless other data was asked for."""
    if manifest.data.get("revision") or any(word.startswith(("--dataset", "--eval-dataset")) for word in changes):
        return
    import io
    from contextlib import redirect_stderr, redirect_stdout

    from hf_tuner import flags
    from hf_tuner.data.fingerprint import fingerprints
    from hf_tuner.data.load import load_data
    from hf_tuner.models.restore import task_class

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        data = load_data(flags.parse(["--config", path, *changes], {}), task_class(manifest.task))
    here, there = fingerprints(data), manifest.data["fingerprints"]
    if here != there and not {"--seed", "--columns"} & {word.partition("=")[0] for word in changes}:
        rows = ", ".join(f"{split} {len(part):,} rows" for split, part in data.items())
        was = ", ".join(f"{split} {count:,} rows" for split, count in manifest.data["rows"].items())
        raise UsageError(
            f"{manifest.data['dataset']} here ({rows}) is not what the run was trained on ({was}): the fingerprints "
            "differ. Bring the same data, or name what to train on instead: --dataset"
        )


def pinned(settings: dict[str, Any], manifest: Any) -> dict[str, Any]:
    """The settings with the commits of base model and data that the manifest names, whatever name they were given by."""
    result = dict(settings)
    if manifest.base.get("revision"):
        result["model_revision"] = manifest.base["revision"]
    for key, commit in {"dataset": "revision", "eval_dataset": "eval_revision"}.items():
        if manifest.data.get(commit) and settings.get(key):
            result[key] = _at(str(settings[key]), manifest.data[commit])
    return result


def _at(name: str, commit: str) -> str:
    """A data set's name at a commit: name:config@commit#sample."""
    from hf_tuner.data.sources import parse

    source = parse(name)
    sample = f"#{source.sample}" if source.sample else ""
    return f"{source.name}{f':{source.config}' if source.config else ''}@{commit}{sample}"
