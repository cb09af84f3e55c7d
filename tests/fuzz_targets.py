"""What is fuzzed: doors through which files of others come in. Each ends in an answer or in a short TunerError.

A target has a strategy of examples and a check. A check raises AssertionError for everything else: another exception,
a wrong answer, a long message, a file left behind or changed. `within` turns a hang into a failure.
"""

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from conftest import make_tiny_model, write_rows
from fuzz_mutations import RECORDS, TABLES, changed, command_lines, data_files, folder_changes, yaml_files
from hypothesis import strategies as st

from hf_tuner.console import CONTROL
from hf_tuner.errors import TunerError, UsageError
from hf_tuner.hub.manifest import DIGEST, FILE, content_digest, file_digests

SECONDS = 10
"""Of processor time; nothing here takes more than a tenth of it. Three times as much by the clock."""
LONGEST_MESSAGE = 4000
TEXTS = ["rain and snow", "the ball is in the goal", "cheese " * 300]
"""The last is cut: a wrong maximal length gives another answer."""


@dataclass(frozen=True)
class Target:
    """One door: which examples come in, and what is looked at."""

    strategy: Callable[[], st.SearchStrategy[Any]]
    check: Callable[[Any], None]


class Hang(BaseException):
    """An example took too long; not an Exception, so that nothing on the way catches it."""


@contextlib.contextmanager
def within(seconds: float = SECONDS) -> Iterator[None]:
    """Raise Hang when the block uses more processor time than that, or waits three times as long."""

    def stop(number: int, frame: Any) -> None:
        raise Hang(f"more than {seconds} s")

    before = [signal.signal(n, stop) for n in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 3 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


def outcome(act: Callable[[], Any]) -> Any:
    """What `act` gives, in silence; a TunerError is an answer too, when its message is short and printable."""
    with within(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return act()
        except TunerError as error:
            _require_short(error)
            return error


def _require_short(error: TunerError) -> None:
    text = str(error)
    assert text.strip(), f"{type(error).__name__} says nothing"
    assert len(text) <= LONGEST_MESSAGE, f"a message of {len(text)} characters: {text[:80]!r} …"
    assert not CONTROL.search(text) and "Traceback" not in text, f"not for a screen: {text[:200]!r}"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one example."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- data files


def check_data(example: tuple[str, bytes, dict[str, Any]]) -> None:
    """A file of any bytes through `load_data`: rows of text, or a TunerError; the file stays and stays alone."""
    from hf_tuner.config import Run
    from hf_tuner.data.load import load_data
    from hf_tuner.tasks.text_classification import TextClassification

    ending, content, settings = example
    with scratch() as folder:
        (folder / f"rows{ending}").write_bytes(content)
        run = Run(dataset=str(folder / f"rows{ending}"), output_dir=str(folder / "run"), **settings)

        def act() -> Any:
            data = load_data(run, TextClassification)
            TextClassification.from_data(data, run)
            return data

        found = outcome(act)
        assert contents(folder) == {f"rows{ending}": content}, f"left behind: {sorted(contents(folder))}"
        if not isinstance(found, TunerError):
            for rows in found.values():
                assert len(rows) and all(isinstance(t, str) and t.strip() for t in rows["text"][:])


# ---- configurations and command lines


@functools.cache
def settings_known() -> tuple[list[str], list[bytes]]:
    """Names of all settings, and the run.yaml of some runs."""
    from hf_tuner import flags

    lines = (["--method", "lora", "--model", "demo", "--dataset", "demo"], ["--method", "full", "--loss", "focal"],
             ["--method", "qlora", "--optimizer", "layerwise-decay", "--learning-rate", "1e-4"])  # fmt: skip
    sound = [yaml.safe_dump(flags.parse(words, {}).resolved(), sort_keys=False).encode() for words in lines]
    names = sorted({f.name for f in flags.training_flags()} | {f.name for f in flags.run_flags()})
    more = [
        "lora",
        "r",
        "target_modules",
        "focal",
        "focal.gamma",
        "cross-entropy",
        "cross-entropy.smoothing",
        "hub_token",
        "lr",
    ]
    return names + more, sound


def check_parse(words: list[str]) -> None:
    """Words through the parser: a Run that reads back as itself, or a UsageError; then its model and data by name."""
    from hf_tuner import flags, launching
    from hf_tuner.data.sources import parse as parse_source
    from hf_tuner.models.load import resolve_model

    found = outcome(lambda: flags.parse(words, {}))
    if isinstance(found, TunerError):
        assert isinstance(found, UsageError), f"{type(found).__name__}: {found}"
        return
    with scratch() as folder:
        again = folder / "run.yaml"
        again.write_text(
            yaml.safe_dump(found.resolved(), sort_keys=False, allow_unicode=True), "utf-8", "surrogatepass"
        )
        back = outcome(lambda: flags.parse(["--config", str(again)], {}))
        assert repr(back) == repr(found), f"reads back as {back!r}, was {found!r}"
    outcome(lambda: launching.default_folder(found))
    outcome(lambda: resolve_model(found.model))
    outcome(lambda: parse_source(found.dataset, found.dataset_config))


def check_yaml(content: bytes) -> None:
    """A file of any bytes as --config."""
    with scratch() as folder:
        (folder / "config.yaml").write_bytes(content)
        check_parse(["--config", str(folder / "config.yaml")])
        assert contents(folder) == {"config.yaml": content}


# ---- a finished run


@functools.cache
def finished() -> tuple[Path, dict[str, bytes], Any]:
    """A finished run, its files, and the logits it gives; made once for this process."""
    home = Path(tempfile.mkdtemp(prefix="fuzz-run-"))
    pid = os.getpid()
    import atexit

    atexit.register(lambda: os.getpid() == pid and shutil.rmtree(home, ignore_errors=True))
    (home / "tiny").mkdir()
    (home / "data").mkdir()
    make_tiny_model(home / "tiny")
    write_rows(home / "data" / "train.csv", 24)
    write_rows(home / "data" / "test.csv", 12, seed=9)
    from hf_tuner.launching import finetune

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        finetune(model=str(home / "tiny"), dataset=str(home / "data"), method="lora", output_dir=str(home / "run"), max_steps=4,
                 save_strategy="steps", save_steps=2, save_total_limit=3, learning_rate=0.01, verify=False)  # fmt: skip
    files = {n: c for n, c in contents(home / "run").items() if "/" not in n and not n.endswith((".html", ".md"))}
    return home, files, answers(home / "run")


def answers(folder: Path) -> list[Any]:
    """Labels by name with their probabilities, to the last bit."""
    from hf_tuner.evaluation.predict import predict

    return predict(folder, TEXTS)


def _changed_run(folder: Path, changes: list[tuple[str, list]], seal: bool = False) -> dict[str, bytes]:
    """A copy of the finished run with changes; sealed, its manifest agrees with the changed files."""
    _, files, _ = finished()
    now = dict(files)
    for name, ops in changes:
        after = changed(files[name], ops)
        now = {k: v for k, v in now.items() if k != name} | ({name: after} if after is not None else {})
    for name, content in now.items():
        (folder / name).write_bytes(content)
    if seal and FILE in now:
        now[FILE] = _sealed(folder, now[FILE])
        (folder / FILE).write_bytes(now[FILE])
    return now


def _sealed(folder: Path, manifest: bytes) -> bytes:
    """The manifest with the checksums of the files that are there, and its own; as it is when it cannot be sealed."""
    try:
        data = json.loads(manifest)
        data["files"] = file_digests(folder, [name for name in data["files"] if (folder / name).is_file()])
        data[DIGEST] = content_digest({k: v for k, v in data.items() if k != DIGEST})
        return json.dumps(data).encode()
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
        return manifest


def check_run(changes: list[tuple[str, list]]) -> None:
    """A damaged run predicts what it did before damage, or is refused: never something else."""
    _, _, sound = finished()
    with scratch() as folder:
        before = _changed_run(folder, changes)
        found = outcome(lambda: answers(folder))
        assert contents(folder) == before, "predicting changed the run's folder"
        assert isinstance(found, TunerError) or found == sound, f"another answer: {found[0]}, was {sound[0]}"


def check_sealed(changes: list[tuple[str, list]]) -> None:
    """A run whose files are odd, though its manifest vouches for them (somebody else's): loads or is refused."""
    with scratch() as folder:
        before = _changed_run(folder, changes, seal=True)
        outcome(lambda: answers(folder))
        assert contents(folder) == before, "predicting changed the run's folder"


def check_push(changes: list[tuple[str, list]]) -> None:
    """What push would publish of a damaged run: a whole folder, or a refusal; nothing stays behind."""
    from hf_tuner.hub.publish import published

    def act() -> list[str]:
        with published(folder) as ready:
            return sorted(contents(ready))

    with scratch() as folder:
        before = _changed_run(folder, changes)
        outcome(act)
        assert contents(folder) == before and len(list(folder.iterdir())) == len(before), "something was left behind"


# ---- an unfinished run


@functools.cache
def unfinished() -> dict[str, bytes]:
    """Files of the run as a kill would leave them: settings and two checkpoints."""
    files = contents(finished()[0] / "run")
    return {name: content for name, content in files.items() if name == "run.yaml" or name.startswith("checkpoint-")}


def check_resume(changes: list[tuple[str, list]]) -> None:
    """Damaged checkpoints: one that is whole is gone on from, or the run is refused; a damaged one never is."""
    from hf_tuner import flags
    from hf_tuner.folder import claim
    from hf_tuner.training.resume import checkpoint_to_resume

    sound = unfinished()
    now = json.loads(sound["checkpoint-4/checkpoint.json"])["identity"]
    with scratch() as folder:
        (folder / "was.yaml").write_bytes(sound["run.yaml"])
        run = replace(flags.parse(["--config", str(folder / "was.yaml")], {}), output_dir=str(folder / "run"))
        left = dict(sound)
        for name, ops in changes:
            after = changed(sound[name], ops)
            left = {k: v for k, v in left.items() if k != name} | ({name: after} if after is not None else {})
        for name, content in left.items():
            (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "run" / name).write_bytes(content)

        def act() -> str | None:
            with claim(run):
                return checkpoint_to_resume(run, now)

        found = outcome(act)
        after = contents(folder / "run")
        kept = {name: content for name, content in after.items() if name not in ("run.yaml", ".lock")}
        assert kept == {k: v for k, v in left.items() if k != "run.yaml"}, f"touched: {sorted(after)}"
        if isinstance(found, str):
            name = Path(found).name
            mine = {k for k in sound if k.startswith(f"{name}/") and not k.endswith("/checkpoint.json")}
            assert all(left.get(k) == sound[k] for k in mine), f"{name} is damaged and was taken"
        elif found is None:
            assert not any(k.endswith("/checkpoint.json") for k in left), "checkpoints were ignored in silence"


# ---- the cache of frozen features


@functools.cache
def features_kept() -> tuple[dict[str, bytes], Any]:
    """The files of a cache of features, and the features in it."""
    from hf_tuner.training.features import cached

    with scratch() as home, _features_in(home) as folder:
        made, _ = cached(_Reader(), _rows(), list, ["model"])
        return contents(folder), made


class _Reader:
    """Reads features that follow from the number of rows."""

    def features(self, rows: Any, collate: Any) -> Any:
        import numpy as np

        from hf_tuner.training.features import Features

        base = np.arange(len(rows) * 4, dtype=np.float32).reshape(len(rows), 4)
        return Features(base, base + 0.5)


def _rows() -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [[1, 2], [3], [4, 5, 6]]})


@contextlib.contextmanager
def _features_in(home: Path) -> Iterator[Path]:
    from unittest import mock

    with mock.patch.dict(os.environ, {"HF_HOME": str(home)}):
        yield home / "hf-tuner" / "features"


def check_features(changes: list[tuple[str, list]]) -> None:
    """A damaged cache gives the features that were put there, or makes them anew."""
    import numpy as np

    from hf_tuner.training.features import cached

    files, made = features_kept()
    with scratch() as home, _features_in(home) as folder:
        folder.mkdir(parents=True)
        after: dict[str, bytes | None] = dict(files)
        for ending, ops in changes:
            name = next(name for name in files if name.endswith(ending))
            after[name] = changed(files[name], ops)
        for name, content in after.items():
            if content is not None:
                (folder / name).write_bytes(content)
        found, _ = outcome(lambda: cached(_Reader(), _rows(), list, ["model"]))
        assert np.array_equal(found.mean, made.mean) and np.array_equal(found.entry, made.entry), "other features"
        assert sorted(p.name for p in folder.iterdir()) == sorted(files), "something was left behind"


def _run_files(*endings: str) -> list[str]:
    return sorted(name for name in finished()[1] if name.endswith(endings))


TARGETS = {
    "csv": Target(lambda: data_files([".csv", ".tsv", ".csv.gz"], TABLES), check_data),
    "jsonl": Target(lambda: data_files([".jsonl", ".json", ".ndjson"], RECORDS), check_data),
    "yaml": Target(lambda: yaml_files(settings_known()[1], settings_known()[0]), check_yaml),
    "words": Target(lambda: command_lines(settings_known()[0]), check_parse),
    "run": Target(lambda: folder_changes(_run_files(".json", ".safetensors", ".yaml")), check_run),
    "sealed": Target(
        lambda: folder_changes([n for n in _run_files(".json", ".safetensors") if n != "report.json"]),
        check_sealed,
    ),
    "push": Target(lambda: folder_changes(_run_files(".json", ".yaml", ".jsonl")), check_push),
    "resume": Target(lambda: folder_changes(sorted(unfinished())), check_resume),
    "features": Target(lambda: folder_changes([".npz", ".seal"]), check_features),
}
