"""pull: copy a run from the Hub into a folder, checked byte for byte."""

from collections.abc import Sequence

from hf_tuner.cli._words import Words
from hf_tuner.console import say


def main(words: Sequence[str]) -> None:
    """hf-tuner pull user/name[@revision][/subfolder] [--output FOLDER]"""
    parser = Words("pull", __doc__)
    parser.add_argument("run", metavar="ADDRESS", help="user/name[@revision][/subfolder]")
    parser.add_argument("--output", help="folder to make (default: the repository's name)")
    seen = parser.read(words)
    from hf_tuner.hub.manifest import read_manifest
    from hf_tuner.hub.pull import pull

    folder = pull(seen.run, seen.output)
    manifest = read_manifest(folder)
    say(
        f"pulled {seen.run} → {folder}: {manifest.task} by {manifest.method} on {manifest.base['id']}, every file checked"
    )
    say(f"  predict   hf-tuner predict {folder} --input texts.csv --output out.csv")
