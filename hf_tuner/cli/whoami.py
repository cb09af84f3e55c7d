"""whoami: who the Hub takes you for, and where you may write."""

from collections.abc import Sequence

from hf_tuner.cli._words import Words
from hf_tuner.console import say
from hf_tuner.errors import EnvironmentFault


def main(words: Sequence[str]) -> None:
    """hf-tuner whoami"""
    Words("whoami", __doc__).read(words)
    from hf_tuner.hub.client import api, token_source
    from hf_tuner.hub.faults import LOGIN, hub_faults
    from hf_tuner.hub.reach import require_answer

    require_answer()
    if not token_source():
        raise EnvironmentFault(f"nobody: there is no token; {LOGIN}")
    with hub_faults("asking who this is"):
        who = api().whoami()
    role = (who.get("auth", {}).get("accessToken") or {}).get("role", "unknown")
    say(f"{who['name']} (token from {token_source()}, role: {role})")
    for org in who.get("orgs", []):
        say(f"  also {org['name']}")
