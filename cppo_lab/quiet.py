"""Silences progress bars and notices of libraries."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Call once per process, before models are loaded or saved."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("httpx").setLevel(logging.WARNING)
