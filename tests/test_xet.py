"""There and back by Xet, the transfer that users of the Hub get unless they switch it off."""

import subprocess
import sys
from pathlib import Path

from hub_client import environment
from hub_here import WEIGHTS
from hub_server import Hub


def test_a_run_goes_there_and_back_through_xet(run: Path, tmp_path: Path) -> None:
    with Hub(tmp_path / "hub", xet=True).serve() as hub:
        hub.fail(path="/v1/xorbs", method="POST", cut_request_at=1000)
        for user, words in (
            ("hf_alice", ("push", run, "--hub-model-id", "alice/x")),
            ("hf_bob", ("pull", "alice/x", "--output", tmp_path / "pulled")),
        ):
            line = [sys.executable, "-m", "hf_tuner.cli.main", *map(str, words)]
            variables = environment(hub, tmp_path / user, user, xet=True)
            done = subprocess.run(line, env=variables, capture_output=True, text=True, timeout=280)
            assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()
        sent = [entry for entry in hub.journal if "/_xet/" in entry["path"] and "xorb" in entry["path"]]
        assert {entry["method"] for entry in sent} >= {"POST", "GET"}
