"""From the Hub to a folder: a run of somebody else, fetched whole, checked byte for byte."""

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from huggingface_hub import snapshot_download

from hf_tuner.console import say, warn
from hf_tuner.errors import ArtifactError, EnvironmentFault, UsageError
from hf_tuner.hub.address import Address, parse_address
from hf_tuner.hub.checksums import verify_cached
from hf_tuner.hub.client import api, bounded, is_offline
from hf_tuner.hub.faults import HUB_ERRORS, hub_faults
from hf_tuner.hub.files import FETCHED
from hf_tuner.hub.manifest import FILE, check_files, read_manifest
from hf_tuner.hub.pins import cache_folder, cached_commit, pin
from hf_tuner.hub.reach import unreachable
from hf_tuner.models.safety import inspect
from hf_tuner.models.save import umask


def local_run(name: Path | str) -> Path:
    """The folder of a run: the one that `name` is, or a checked copy in the cache of the run on the Hub.

    Raises ArtifactError when it is no finished run or its bytes are not those that were saved, EnvironmentFault when
    it cannot be fetched.
    """
    address = parse_address(str(name))
    if address is None:
        return Path(name)
    try:
        folder = fetch(address)
    except EnvironmentFault as error:
        raise EnvironmentFault(f"there is no folder {name} here, and on the Hub: {error}") from error
    if not (folder / FILE).is_file():
        raise ArtifactError(f"{address} holds no {FILE}: it is not a finished run of hf-tuner{_elsewhere(address)}")
    return folder


def fetch(address: Address) -> Path:
    """Download what is published of a run into the cache of the Hub's client, whole, and check it."""
    bounded()
    reason = "HF_HUB_OFFLINE is set" if is_offline() else unreachable()
    folder = _cached(address) if reason else _download(address)
    if folder is None:
        raise EnvironmentFault(f"the run {address} is not in the cache, and the Hub cannot be asked: {reason}")
    if reason:
        say(f"  note      the Hub is not asked ({reason}); the cached copy of {address} is used")
    return folder


def pull(name: str, output: Path | str | None = None) -> Path:
    """Copy a run from the Hub into a folder of one's own (default: its name). Raises UsageError when that is not empty."""
    address = parse_address(name)
    if address is None:
        raise UsageError(f'"{name}" is not the address of a run on the Hub; expected user/name, user/name@revision or '
                         "user/name@revision/subfolder")  # fmt: skip
    target = Path(output) if output else Path((address.subfolder or address.repo).split("/")[-1])
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--output {target} exists and is not an empty folder; choose another")
    source = local_run(name)
    check_files(source, read_manifest(source).files)
    inspect(source, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        shutil.copytree(
            source, aside, dirs_exist_ok=True, copy_function=shutil.copyfile
        )  # the cache holds links, a copy none
        for path in (aside, *aside.rglob("*")):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask())
        if target.exists():
            target.rmdir()
        aside.replace(target)
    except OSError as error:
        raise EnvironmentFault(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _elsewhere(address: Address) -> str:
    """Where in the repository runs lie, or how else to load what is there."""
    try:
        files = api().list_repo_files(address.repo, revision=address.revision)
    except HUB_ERRORS:
        files = []
    at = [f"{replace(address, subfolder=f.removesuffix(f'/{FILE}'))}" for f in files if f.endswith(f"/{FILE}")]
    return f". There are runs in it: {', '.join(at[:6])}" if at else ". Load it with peft or transformers"


def _download(address: Address) -> Path:
    inside = f"{address.subfolder}/" if address.subfolder else ""
    what = f"the run {address}"
    commit = pin(address.repo, "model", address.revision)
    for again in (False, True):
        with hub_faults(what, address.repo):
            patterns = [inside + pattern for pattern in FETCHED]
            root = snapshot_download(address.repo, revision=commit, allow_patterns=patterns)
        try:
            verify_cached(address.repo, "model", commit)
            break
        except ArtifactError as error:
            if again:
                raise
            warn(f"{error.args[0].split(';')[0]}; fetching it once more")
    folder = Path(root) / address.subfolder
    if not folder.is_dir() or not any(folder.iterdir()):
        raise ArtifactError(f"{what}: nothing of a run lies there; a repository's runs may lie in its subfolders: "
                            f"{address.repo}@{address.revision or 'main'}/SUBFOLDER")  # fmt: skip
    return folder


def _cached(address: Address) -> Path | None:
    """The folder in the client's cache; whether it is whole, the manifest's list of files tells."""
    commit = cached_commit(address.repo, "model", address.revision)
    folder = cache_folder(address.repo, "model") / "snapshots" / str(commit) / address.subfolder
    return folder if folder.is_dir() else None
