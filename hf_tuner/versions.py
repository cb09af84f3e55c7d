"""Versions of what a result depends on."""

import platform
from importlib.metadata import PackageNotFoundError, version

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
