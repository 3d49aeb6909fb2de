"""What a sweep does about runs that fail: which are tried again, and whether others still start."""

from __future__ import annotations

from dataclasses import dataclass

from cppo_lab.errors import UserError
from cppo_lab.tracking.run_folder import RunFolder

NEVER = "never"


@dataclass(frozen=True)
class FailurePolicy:
    """Which failed runs are tried again.

    retries: how often a run that fails is tried again within the command. retries_earlier: whether runs that failed in
    an earlier command are tried. keeps_diverged: a diverged run is a result, never tried again and no failure.
    fails_fast: no run starts once one has failed.
    """

    retries: int = 0
    retries_earlier: bool = True
    keeps_diverged: bool = False
    fails_fast: bool = False

    def is_to_do(self, folder: RunFolder) -> bool:
        """Whether a run is to be trained."""
        if not folder.is_readable:
            return False
        if folder.status != "FAILED":
            return folder.status != "FINISHED"
        if folder.info.get("diverged"):
            return not self.keeps_diverged and self.retries_earlier
        return self.retries_earlier

    def is_failure(self, folder: RunFolder) -> bool:
        """Whether a run that is FAILED counts as one that failed."""
        return not (self.keeps_diverged and folder.is_readable and folder.info.get("diverged"))

    def tries_again(self, folder: RunFolder, failures: int) -> bool:
        """Whether a run that has failed so often within the command is tried again: a diverged one diverges again."""
        return failures <= self.retries and folder.is_readable and not folder.info.get("diverged")


DEFAULT = FailurePolicy()
"""Failed runs are tried again by the next command, once."""


def failure_policy(retry_failed: str | None, *, fail_fast: bool, keep_diverged: bool) -> FailurePolicy:
    """The policy of the command line's options. Raises UserError for a `retry_failed` that is no count."""
    if retry_failed is None or retry_failed == NEVER:
        return FailurePolicy(0, retry_failed is None, keep_diverged, fail_fast)
    if not retry_failed.isdecimal() or int(retry_failed) > 100:
        raise UserError(f"--retry-failed {retry_failed}: must be a number from 0 to 100, or never.")
    return FailurePolicy(int(retry_failed), True, keep_diverged, fail_fast)
