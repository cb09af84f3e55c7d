"""Errors a user can act on, each with the exit code it ends the process with."""

from hf_tuner.console import printable, short


class TunerError(Exception):
    """Something the user can mend. The message says what was wrong, what was expected and what to do.

    Messages quote what stands in files of others, so they are made fit for a screen here, once for all.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(short(printable(str(message))))


class UsageError(TunerError):
    """Wrong usage, configuration or data, found before training (exit 2)."""

    exit_code = 2


class EnvironmentFault(TunerError):
    """Disk, permission, missing package or an unreachable Hub (exit 3)."""

    exit_code = 3


class LostPeer(EnvironmentFault):
    """Another process of the run is gone or cannot be reached; the cause is told where it happened (exit 3)."""


class ArtifactError(TunerError):
    """A saved model, adapter or checkpoint that is corrupt, unsafe or not what it claims to be (exit 4)."""

    exit_code = 4


class ProofError(ArtifactError):
    """A proof failed: something does not train, or what was saved is not what was measured (exit 4)."""


class DivergedError(TunerError):
    """Training produced a number that is not finite, or a loss above what was allowed (exit 5)."""

    exit_code = 5


class StoppedBySignal(BaseException):
    """The run ended because of a signal (exit 130 for Ctrl-C, 143 for SIGTERM).

    Like KeyboardInterrupt it is no Exception, so that no `except Exception` on its way takes it for a fault and goes on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Ended(TunerError):
    """The processes of a run ended with this code; the message says why (any code above)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = code
