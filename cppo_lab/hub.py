"""The Hugging Face hub: where it cannot be reached, its clients use their caches at once instead of trying again."""

from __future__ import annotations

import functools
import os
import socket
import urllib.parse
import urllib.request

_TIMEOUT_S = 5.0
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@functools.cache
def offline_if_unreachable() -> None:
    """Ask once whether the hub can be reached, and put its clients into offline mode if not.

    Nothing is asked where they are offline already, or reach the hub through a proxy.
    """
    if any(os.environ.get(name, "0").lower() in ("1", "true", "yes", "on") for name in _OFFLINE):
        return
    address = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    if address.scheme in urllib.request.getproxies() or not address.hostname:
        return
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=_TIMEOUT_S).close()
    except OSError:
        _go_offline()


def _go_offline() -> None:
    import datasets
    import huggingface_hub.constants

    # For what is imported later, and in child processes; what is imported already has read it.
    os.environ["HF_HUB_OFFLINE"] = "1"
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True
