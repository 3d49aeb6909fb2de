"""Addresses without what must not be written or shown. Standard library only."""

from __future__ import annotations

import re

# A database's driver takes a password with a slash or an at sign as it is; the last at sign ends it.
_OF_DATABASES = re.compile(
    r"((?:postgres|postgresql|mysql|mariadb|mssql|oracle)(?:\+\w+)?://)[^\s'\"]*@", re.IGNORECASE
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s'\"]*@")
_SECRET_PARAMETER = re.compile(
    r"([?&][^=&\s]*(?:password|passwd|pwd|token|secret|key|odbc_connect)=)[^&\s'\"]+", re.IGNORECASE
)


def without_credentials(text: str) -> str:
    """A text in which every address has lost its user, its password and secret parameters, to be written or shown."""
    return _SECRET_PARAMETER.sub(r"\1…", _CREDENTIALS.sub("", _OF_DATABASES.sub(r"\1", text)))
