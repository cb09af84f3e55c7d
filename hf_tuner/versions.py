"""Versions of what a result depends on."""

import platform
from importlib.metadata import PackageNotFoundError, requires, version

from hf_tuner.errors import EnvironmentFault

PACKAGES = ("torch", "transformers", "peft", "datasets", "accelerate", "safetensors", "tokenizers", "huggingface_hub",
            "scikit-learn", "evaluate", "numpy", "bitsandbytes")  # fmt: skip


def versions() -> dict[str, str]:
    """Version of hf-tuner, Python and every package that shapes results; packages that are absent are left out."""
    from hf_tuner import __version__

    found = {"hf-tuner": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def require_versions() -> None:
    """Raise EnvironmentFault for a package that is missing or older than hf-tuner's own metadata asks for."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in requires("hf-tuner") or []]
    except PackageNotFoundError:  # a checkout that was never installed
        return
    for need in (need for need in asked if need.marker is None):
        try:
            found = version(need.name)
        except PackageNotFoundError:
            found = ""
        if not found or not need.specifier.contains(found, prereleases=True):
            state = f"{need.name} {found} is installed" if found else f"{need.name} is not installed"
            raise EnvironmentFault(f'{state}, hf-tuner needs {need.specifier or "any"}: pip install "{need}"')
