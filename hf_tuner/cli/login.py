"""login: give this machine a token of the Hub (the client's own login)."""

from collections.abc import Sequence

from hf_tuner.cli._words import Words


def main(words: Sequence[str]) -> None:
    """hf-tuner login: asks for a token and keeps it where every Hugging Face library finds it"""
    Words("login", __doc__).read(words)
    from huggingface_hub import login

    from hf_tuner.errors import EnvironmentFault
    from hf_tuner.hub.reach import require_answer

    require_answer()
    try:
        login()
    except Exception as error:  # its device flow raises kinds of its own
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise EnvironmentFault(
            f"logging in failed ({said}); set HF_TOKEN to a token from your settings page instead"
        ) from error
