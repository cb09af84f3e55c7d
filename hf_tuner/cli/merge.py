"""merge: fold an adapter into its base and prove that the predictions stay the same."""

from collections.abc import Sequence

from hf_tuner.cli._words import Words


def main(words: Sequence[str]) -> None:
    """hf-tuner merge RUN [--output FOLDER] [--force]"""
    parser = Words("merge", __doc__).run_folder().code()
    parser.add_argument("--output", help="where the merged model goes (default: RUN/merged)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="largest drift of logits allowed, relative to their scale"
    )
    parser.add_argument("--force", action="store_true", help="save even when the merged model drifts more")
    seen = parser.read(words)
    from hf_tuner.models.merge import merge

    merge(seen.run, seen.output, tolerance=seen.tolerance, force=seen.force)
