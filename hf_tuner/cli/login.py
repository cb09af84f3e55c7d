"""login: give this machine a token of the Hub (the client's own login)."""

from collections.abc import Sequence

from hf_tuner.cli._words import Words


def main(words: Sequence[str]) -> None:
    """hf-tuner login: asks for a token and keeps it where every Hugging Face library finds it"""
    Words("login", __doc__).read(words)
    from huggingface_hub import login

    from hf_tuner.hub.faults import hub_faults
    from hf_tuner.hub.reach import require_answer

    require_answer()
    with hub_faults("logging in"):
        login()
