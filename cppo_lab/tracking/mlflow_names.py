"""The tags, statuses and files of the lab's runs in MLflow."""

from __future__ import annotations

from cppo_lab.tracking.run_folder import MASKED_TOKENS

KIND_TAG = "cppo_lab.kind"
RUN_ID_TAG = "cppo_lab.run_id"
METHOD_TAG = "cppo_lab.method"
REASON_TAG = "cppo_lab.reason"
DIVERGED_TAG = "cppo_lab.diverged"
STARTING_POLICY_TAG = "cppo_lab.starting_policy"
RESULT_VERSION_TAG = "cppo_lab.result_version"
DIRTY_TAG = "cppo_lab.dirty"
THEOREM_TAG = "cppo_lab.theorem_1"
TOKEN_TAG = "cppo_lab.token"
"""Whose run it is: a folder's `mlflow.json` has the same token, before the run is created."""
SENT_TAG = "cppo_lab.sent"
"""The digest of an ended run's content, set once the store was seen to hold all of it."""
VERSION_TAG = "version."
PARENT_TAG = "mlflow.parentRunId"

STATUS = {"FINISHED": "FINISHED", "FAILED": "FAILED", "INTERRUPTED": "KILLED", "RUNNING": "RUNNING"}
"""MLflow's name of a run folder's status."""

RUN_FILES = (
    "run.json", "metrics.jsonl", "timings.jsonl", "profiles.jsonl", "agreement.jsonl", MASKED_TOKENS
)  # fmt: skip
