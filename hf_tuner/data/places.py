"""Where a run writes beside its own folder, and whether it can."""

import os
import tempfile
from pathlib import Path

from huggingface_hub import constants

from hf_tuner.errors import EnvironmentFault


def own_cache() -> Path:
    """What we keep between runs: `hf-tuner` under HF_HOME."""
    return Path(os.environ.get("HF_HOME") or constants.HF_HOME).expanduser() / "hf-tuner"


def require_home() -> None:
    """Raise EnvironmentFault when nobody says where the caches are: the client would make a folder called "~"."""
    if str(os.environ.get("HF_HOME") or constants.HF_HOME).startswith("~") and os.path.expanduser("~") == "~":
        raise EnvironmentFault(
            f"HOME is not set, and user {os.getuid()} has no home folder to keep caches in: set HF_HOME=FOLDER"
        )


def require_cache() -> None:
    """Raise EnvironmentFault when our cache cannot be written."""
    require_home()
    folder = own_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise EnvironmentFault(
            f"the cache {folder} cannot be written: {error.strerror}; set HF_HOME to a folder of your own "
            "(HF_HUB_CACHE may still name a shared one that is only read)"
        ) from error


def require_output(folder: Path) -> None:
    """Raise EnvironmentFault when a folder cannot be made or written, without making it."""
    place = standing(folder)
    if not place.is_dir():
        raise EnvironmentFault(f"--output-dir {folder}: {place} is a file; name a folder")
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise EnvironmentFault(f"--output-dir {folder}: {place} cannot be written; name a folder of your own")


def standing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
