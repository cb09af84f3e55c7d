"""What `--dataset` names: the demo, a file, a folder, a saved data set or a Hub id; and the rows behind it."""

import difflib
import importlib.resources
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import httpx2
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetInfo, Features
from datasets.fingerprint import generate_random_fingerprint
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from hf_tuner import console
from hf_tuner.data.archives import guarded
from hf_tuner.data.files import KINDS, Reading, kind_of, read_file
from hf_tuner.data.inside import require_inside, saved_files
from hf_tuner.data.picture_rows import is_picture, one_picture, picture_folder, undecoded
from hf_tuner.data.seals import sound
from hf_tuner.data.splits import split_of
from hf_tuner.errors import ArtifactError, EnvironmentFault, TunerError, UsageError
from hf_tuner.hub.checksums import verify_cached
from hf_tuner.hub.faults import explain, root_cause
from hf_tuner.hub.pins import pin
from hf_tuner.hub.reach import offline, require_hub, unreachable

SUFFIXES = re.compile(r"(?P<rest>.+?)(?:#(?P<sample>\d+)|@(?P<revision>[^@:#]+)|:(?P<config>[^@:#/\\]+))$")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A parsed data set name: where it lies, and which part of it is wanted."""

    name: str
    path: Path | None = None
    config: str | None = None
    revision: str | None = None
    sample: int | None = None


@dataclass
class Raw:
    """Rows as they were read: one data set for each split, columns untouched."""

    splits: dict[str, Dataset]
    origin: str
    """Where the rows came from, in words."""
    files: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    """For each split its files in order: name, rows, number of the first row as an editor counts."""
    faults: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    revision: str | None = None
    """The commit on the Hub that was read."""
    folder: Path | None = None
    """Where relative paths in the rows begin; None for data that is not of this machine."""

    def place(self, split: str, index: int) -> tuple[str, int]:
        """File and row number of row `index` (from 0) of a split."""
        for name, rows, first in self.files.get(split, []):
            if index < rows:
                return name, first + index
            index -= rows
        return split, index + 1


def parse(text: str, config: str | None = None) -> Source:
    """Take "name:config", "name@revision" and "name#500" apart; what exists as a path is a path.

    Raises UsageError for a path that does not exist, with the nearest name in its folder.
    """
    if not text.strip():
        raise UsageError("no data given; use --dataset FILE, FOLDER or a Hub id (--dataset demo: the bundled messages)")
    rest, parts = text, {"config": config}
    while not Path(rest).expanduser().exists() and (match := SUFFIXES.fullmatch(rest)):
        found = {k: v for k, v in match.groupdict().items() if v is not None}
        rest = found.pop("rest")
        parts.update(found)
    sample = int(parts.pop("sample")) if parts.get("sample") else None  # type: ignore[arg-type]
    if sample == 0:
        raise UsageError(f'"{text}": a sample of 0 rows')
    if rest == "demo":
        folder = Path(str(importlib.resources.files("hf_tuner"))) / "demo" / "customer_messages"
        return Source(name="demo", path=folder, sample=sample)
    path = Path(rest).expanduser()
    if path.exists():
        if parts.get("revision"):
            raise UsageError(f'"{text}": a local path has no revision')
        return Source(name=rest, path=path, config=parts.get("config"), sample=sample)
    if _looks_like_path(rest):
        raise UsageError(_missing(path))
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", rest):
        raise UsageError(f'"{text}" is neither an existing path nor a Hub id (such as stanfordnlp/imdb)')
    return Source(name=rest, config=parts.get("config"), revision=parts.get("revision"), sample=sample)


def read(source: Source, reading: Reading) -> Raw:
    """All splits of a source. Raises UsageError or EnvironmentFault of a few lines."""
    raw = _read_hub(source) if source.path is None else _read_local(source, source.path, reading)
    raw.splits = {split: undecoded(rows) for split, rows in raw.splits.items()}
    return raw


def _read_local(source: Source, path: Path, reading: Reading) -> Raw:
    if path.is_dir():
        raw = _read_folder(path, source.config, reading)
        if source.name == "demo":
            raw.origin = "demo (the bundled customer messages)"
    elif source.config:
        raise UsageError(f"{path.name} is a file and has no configuration ({source.config})")
    elif is_picture(path):
        raw = _whole({"train": one_picture(path)}, str(path), path.name)
    else:
        raw = _read_files({"train": [path]}, reading, str(path))
    raw.notes[:0] = reading.notes
    raw.folder = path if path.is_dir() else path.parent
    return raw


def _looks_like_path(text: str) -> bool:
    known = (*KINDS, ".gz", ".txt", ".xlsx", ".xls", ".arrow", ".pkl", ".zip")
    marked = text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1
    return marked or text.lower().endswith(known) or is_picture(Path(text))


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path}: there is no folder {path.parent}"
    names = sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    if close:
        return f'{path}: no such file or folder; did you mean "{path.parent / close[0]}"?'
    return f"{path}: no such file or folder; {path.parent.resolve()} holds {', '.join(names[:10]) or 'nothing'}"


def _read_files(
    files: Mapping[str, list[Path]], reading: Reading, origin: str, features: Features | None = None
) -> Raw:
    splits, places = {}, {}
    for split, paths in files.items():
        parts = [_featured(read_file(path, reading), path, features) for path in paths]
        for path, part in zip(paths[1:], parts[1:], strict=True):
            if set(part.column_names) != set(parts[0].column_names):
                raise UsageError(
                    f"{path.name} and {paths[0].name} both belong to {split} but have different columns: "
                    f"{', '.join(part.column_names)} and {', '.join(parts[0].column_names)}"
                )
        splits[split] = _joined(parts, split)
        # A CSV row is counted as a spreadsheet shows it: the header is row 1.
        places[split] = [
            (path.name, part.num_rows, 2 if kind_of(path) == "csv" else 1)
            for path, part in zip(paths, parts, strict=True)
        ]
    return Raw(splits, origin, places, reading.faults)


def _joined(parts: list[Dataset], split: str) -> Dataset:
    if len(parts) == 1:
        return parts[0]
    try:
        return datasets.concatenate_datasets(parts)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise UsageError(f"the files of {split} hold different types in the same column: {_brief(error)}") from error


def _featured(data: Dataset, path: Path, features: Features | None) -> Dataset:
    """The rows with the column types that the card of their folder gives."""
    if features is None or kind_of(path) == "parquet":
        return data if features is None or data.features == features else _cast(data, path, features)
    return _cast(data, path, features)


def _cast(data: Dataset, path: Path, features: Features) -> Dataset:
    missing = [name for name in features if name not in data.column_names]
    if missing:
        found = ", ".join(data.column_names)
        raise UsageError(f'{path.name}: README.md names the column "{missing[0]}", but the file has {found}')
    columns = {name: _cast_column(data.data.table[name], name, path, features[name]) for name in features}
    return Dataset(pa.table(columns), info=DatasetInfo(features=features), fingerprint=generate_random_fingerprint())


def _cast_column(column: pa.ChunkedArray, name: str, path: Path, feature: Any) -> pa.ChunkedArray:
    text = pa.types.is_string(column.type)
    kind = pa.schema(Features({name: feature}).arrow_schema).field(name).type
    if text and not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    if text and isinstance(feature, ClassLabel):
        return _class_ids(column, name, path, feature.names)
    try:
        return column.cast(kind)
    except (pa.ArrowException, NotImplementedError) as error:
        raise UsageError(f'{path.name}: column "{name}" is not {feature} as README.md says: {_brief(error)}') from error


def _class_ids(column: pa.ChunkedArray, name: str, path: Path, names: list[str]) -> pa.ChunkedArray:
    """Class ids of class names, or of ids written as text."""
    places = {text: index for index, text in enumerate(names)}
    ids = {str(index): index for index in range(-1, len(names))}
    found = pc.unique(column)
    unknown = [v for v in found.to_pylist() if v is not None and v not in places and v not in ids]
    if unknown:
        row = pc.index(column, unknown[0]).as_py() + 2
        raise UsageError(
            f'{path.name} row {row}: {name} "{unknown[0]}" is not among the {len(names)} classes of README.md'
        )
    values = pa.array([None if v is None else places.get(v, ids.get(v)) for v in found.to_pylist()], pa.int64())
    return values.take(pc.index_in(column, found).combine_chunks())


def _read_folder(path: Path, config: str | None, reading: Reading) -> Raw:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_saved(path)
    pictures = picture_folder(path)
    if pictures is not None:
        raw = _whole(pictures[0], str(path), path.name)
        raw.notes += pictures[1]
        return raw
    card = path / "README.md"
    if card.is_file() and re.search(r"^configs:", card.read_text(encoding="utf-8", errors="replace")[:100_000], re.M):
        return _read_layout(path, config, reading)
    if config and (path / config).is_dir():
        path = path / config
    elif config:
        folders = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        raise UsageError(f'{path} has no configuration "{config}"; its folders: {", ".join(folders) or "none"}')
    files = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
    mine = [p for p in files if kind_of(p)]
    mine = [p for p in mine if kind_of(p) != "text"] or mine  # notes beside tables are no data
    if not files:
        raise UsageError(f"{path} holds no data files; expected {', '.join(sorted(KINDS))}")
    tables = any(kind_of(p) != "text" and p.stem.lower() not in ("metadata", "id2label") for p in mine)
    if not mine or (not tables and any(map(is_picture, files))):
        return _read_layout(path, None, reading)
    return _by_name(path, mine, files, reading)


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _by_name(folder: Path, mine: list[Path], files: list[Path], reading: Reading) -> Raw:
    """Files of a plain folder, each in the split its name tells."""
    groups: dict[str, list[Path]] = {}
    for path in mine:
        groups.setdefault(split_of(path.relative_to(folder)) or "", []).append(path)
    unnamed = groups.pop("", [])
    if unnamed and groups:
        reading.notes.append(f"left aside, no split in the name: {', '.join(p.name for p in unnamed[:5])}")
    known = (".md", ".txt", ".py", "")
    other = [p.name for p in files if p not in mine and p.suffix.lower() not in known and not is_picture(p)]
    if other:
        reading.notes.append(f"left aside, not a kind that is read: {', '.join(other[:5])}")
    return _read_files(groups or {"train": unnamed}, reading, str(folder))


def _read_saved(path: Path) -> Raw:
    try:
        require_inside(path, saved_files(path), "its list of files")
        data = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException) as error:
        raise UsageError(f"{path}: the saved data set cannot be read ({_brief(error)})") from error
    splits = dict(data) if isinstance(data, datasets.DatasetDict) else {"train": data}
    return _whole(splits, f"{path} (saved data set)", path.name)


def _read_layout(path: Path, config: str | None, reading: Reading) -> Raw:
    """A folder laid out as on the Hub: its card names the files of each split and the types of the columns."""
    with offline():
        try:
            builder = datasets.load_dataset_builder(str(path), config)
            files = {str(k): [Path(str(p)) for p in v] for k, v in (builder.config.data_files or {}).items()}
            require_inside(path, (name for v in (builder.config.data_files or {}).values() for name in v), "README.md")
            if files and all(kind_of(p) for paths in files.values() for p in paths):
                name = f"{path}" + (f":{builder.config.name}" if builder.config.name != "default" else "")
                separator = getattr(builder.config, "delimiter", None) or getattr(builder.config, "sep", None)
                if separator not in (None, ",") and reading.separator is None:
                    reading.separator = separator
                return _read_files(files, reading, name, builder.info.features)
            with guarded(), tempfile.TemporaryDirectory() as place:  # the library's cache knows files by their age only
                loaded = datasets.load_dataset(str(path), config, cache_dir=place, keep_in_memory=True)
        except TunerError:
            raise
        except Exception as error:  # the library raises many kinds for a folder it cannot make sense of
            raise UsageError(f"{path}: {_no_config(error) or _brief(error, 300)}") from error
    return _whole(dict(loaded), str(path), path.name)


def _whole(splits: Mapping[str, Dataset], origin: str, name: str) -> Raw:
    return Raw(dict(splits), origin, {k: [(f"{name} {k}", v.num_rows, 1)] for k, v in splits.items()})


def _read_hub(source: Source) -> Raw:
    cached = _cached(source.name)
    require_hub(f"the data set {source.name}", cached=cached)
    reason = unreachable() if cached else None
    commit = pin(source.name, "dataset", source.revision)
    if reason:
        with offline():
            loaded = _load(source, source.revision)
    else:
        loaded = _load_whole(source, commit)
    origin = f"{source.name}{':' + source.config if source.config else ''} on the Hub"
    raw = _whole(dict(loaded), origin + (f" at {commit[:8]}" if commit else ""), source.name)
    raw.revision = commit
    if reason:
        raw.notes.append(f"the Hub cannot be reached ({reason}); the cached copy is used")
    return raw


def opened(name: str, config: str | None = None, **options: Any) -> dict[str, datasets.IterableDataset]:
    """Splits of a data set as streams."""
    return dict(datasets.load_dataset(name, config, streaming=True, **options))


def _load(source: Source, revision: str | None, **options: Any) -> Any:
    def load() -> Any:
        return datasets.load_dataset(source.name, source.config, revision=revision, **options)

    def again() -> Any:
        for folder in _prepared(source.name):
            shutil.rmtree(folder, ignore_errors=True)
        return load()

    try:
        with guarded():
            return sound(load, again, source.name)
    except TunerError:
        raise
    except Exception as error:  # dozens of kinds; each ends in one line that says what to do
        raise read_error(source, error) from error


def _load_whole(source: Source, commit: str | None) -> Any:
    """The data set, its files compared with the Hub's hashes; what arrived damaged is fetched and prepared once more."""
    loaded = _load(source, commit)
    try:
        verify_cached(source.name, "dataset", commit)
    except ArtifactError as error:
        console.warn(f"{str(error).partition(';')[0]}; fetching it once more")
        loaded = _load(source, commit, download_mode="force_redownload")
        try:
            verify_cached(source.name, "dataset", commit)
        except ArtifactError:
            loaded.cleanup_cache_files()
            for prepared in {Path(f["filename"]).parent for part in loaded.values() for f in part.cache_files}:
                shutil.rmtree(prepared, ignore_errors=True)  # damaged rows, prepared under the right name
            raise
    return loaded


def _cached(name: str) -> bool:
    snapshots = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "snapshots"
    return any(folder.is_dir() for folder in (*_prepared(name), snapshots))


def _prepared(name: str) -> list[Path]:
    """Where `datasets` may keep the rows of a data set of the Hub."""
    plain = name.replace("/", "___")
    return [Path(datasets.config.HF_DATASETS_CACHE) / n for n in dict.fromkeys((plain, plain.lower()))]


def read_error(source: Source, error: Exception) -> TunerError:
    """One of ours for whatever `datasets` raises."""
    text = _brief(error, 300)
    if (
        isinstance(root_cause(error), HfHubHTTPError | httpx2.HTTPError)
        or type(error).__name__ == "DatasetNotFoundError"
    ):
        return explain(error, f"the data set {source.name}", source.name, "dataset")
    if "scripts are no longer supported" in text:
        cure = f"try its Parquet copy: --dataset {source.name}@refs/convert/parquet"
        return UsageError(f"{source.name} is a Python script, and code from a data set is never run; {cure}")
    if isinstance(error, ValueError) and _no_config(error):
        return UsageError(f"{source.name}: {_no_config(error)}; name one: --dataset {source.name}:CONFIG")
    if isinstance(error, OSError):
        return EnvironmentFault(f"{source.name} cannot be fetched: {text}")
    cause = error.__cause__ or error.__context__
    return UsageError(f"{source.name} cannot be read: {_brief(cause, 300) if cause else text}")


def _no_config(error: Exception) -> str | None:
    """What configurations there are, when the error is about a missing or unknown one."""
    listed = re.search(r"(?:[Aa]vailable|among).*?(\[.*?\])", str(error), re.S)
    if listed is None or "onfig" not in str(error):
        return None
    asked = re.search(r"BuilderConfig '(.*?)' not found", str(error))
    what = f'no configuration "{asked[1]}"' if asked else "several configurations"
    return f"{what}; there are: {listed[1].strip('[]').replace(chr(39), '')}"


def _brief(error: BaseException, length: int = 160) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else text[: length - 1] + "…"
