"""Every command line in README and docs parses against today's flags."""

import re
import shlex
from pathlib import Path

import pytest

from hf_tuner import catalog, flags
from hf_tuner.cli.main import verbs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Lines of the ```bash blocks that start a run."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            joined = block.replace("\\\n", " ")
            found += [
                line.split("  #")[0].strip()
                for line in joined.splitlines()
                if line.startswith(("hf-tuner", "accelerate", "python"))
            ]
    return sorted(set(found))


def test_there_are_commands() -> None:
    assert len(commands()) > 20


@pytest.mark.parametrize("line", commands())
def test_command(line: str, tmp_path: Path) -> None:
    words = shlex.split(line)
    if words[0] == "hf-tuner":
        words = words[1:]
        verb, rest = words[0], words[1:]
        if verb == "plan":
            verb, rest = words[1], words[2:]
        if verb in catalog.names("methods"):
            parse(["--method", verb, *rest], tmp_path)
        else:
            assert verb in verbs() or verb.startswith("-"), line
    else:
        script = next((i for i, w in enumerate(words) if w.endswith(".py")), None)
        if script is not None and "recipes/" in words[script]:
            assert (ROOT / words[script]).is_file()
            parse(words[script + 1 :], tmp_path)


def parse(words: list[str], folder: Path) -> None:
    if "--help" in words:
        return
    if "--config" in words:
        at = words.index("--config")
        (folder / "run.yaml").write_text("seed: 1\n")
        words = [*words[: at + 1], str(folder / "run.yaml"), *words[at + 2 :]]
    flags.parse(words, {})
