"""Addresses without what must not be written or shown. Standard library only."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_SECRET_PARAMETER = re.compile(
    r"([?&][^=&\s]*(?:password|passwd|pwd|token|secret|key)=)[^&\s'\"]+", re.IGNORECASE
)


def without_credentials(text: str) -> str:
    """A text in which every address has lost its user, its password and secret parameters, to be written or shown."""
    return _SECRET_PARAMETER.sub(r"\1…", _CREDENTIALS.sub("", text))
