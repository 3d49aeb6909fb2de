"""`doctor`: whether this machine has what a run needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cppo_lab.addresses import without_credentials
from cppo_lab.cli.console import console, plural, print_json, table
from cppo_lab.cli.options import AsJson, ConfigDir, Output, Overrides, Plugins, all_overrides
from cppo_lab.errors import UserError
from cppo_lab.paths import conf_dir, output_root, sweeps_dir
from cppo_lab.plugins import installed_plugins, load_plugins

_EXTRAS = {
    "openai": "openai",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "ray",
}
_REQUIRED = (
    "torch",
    "transformers",
    "hydra-core",
    "omegaconf",
    "pydantic",
    "mlflow",
    "pandas",
    "matplotlib",
    "datasets",
    "math-verify",
    "pebble",
)

Finding = tuple[str, str, str]
"""What was checked; `ok`, `missing` or `problem`; and details with the remedy."""


class _Backend(StrEnum):
    native = "native"
    verl = "verl"


def doctor(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="SWEEP",
            help="Also check that this sweep's runs fit on this machine.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
    backend: Annotated[
        _Backend, typer.Option("--backend", help="Also check the environment of this backend.")
    ] = _Backend.native,
) -> None:
    """Check the installation: versions, device, extras, plug-ins, folders and the tracking store.

    With a sweep, also check that its unfinished runs have room: their checkpoints on the disk of the output folder,
    and their weights, gradients and moments in the memory of the device.

    Examples:

    * `cppo-lab doctor`
    * `cppo-lab doctor quickstart 'seed=range(0,20)'`
    * `cppo-lab doctor --backend verl`
    """
    root = output or output_root()
    findings = [*_python(), *_packages(), _device(), *_extras(), *_plugins(plugins or [])]
    findings += [*_folders(root), _store(root)]
    if sweep is not None:
        findings += _room(sweep, all_overrides(overrides, output, plugins), config_dir)
    if backend is _Backend.verl:
        from cppo_lab.cli.verl_commands import environment_findings

        findings += environment_findings()
    if as_json:
        print_json([dict(zip(("what", "state", "details"), finding, strict=True)) for finding in findings])
    else:
        shown = table("cppo-lab doctor", "", "what", "details")
        marks = {"ok": "[green]✓[/]", "missing": "[dim]–[/]", "problem": "[red]✗[/]"}
        for what, state, details in findings:
            shown.add_row(marks[state], what, details)
        console().print(shown)
    if any(state == "problem" for _, state, _ in findings):
        sys.exit(1)


def _python() -> list[Finding]:
    state = "ok" if sys.version_info >= (3, 11) else "problem"
    details = sys.version.split()[0] + ("" if state == "ok" else "; 3.11 or later is needed")
    return [("python", state, details)]


def _packages() -> list[Finding]:
    from importlib import metadata

    findings: list[Finding] = []
    for name in _REQUIRED:
        try:
            findings.append((name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            findings.append((name, "problem", "not installed; pip install cppo-lab installs it"))
    return findings


def _device() -> Finding:
    try:
        import torch
    except ImportError as error:
        return ("device", "problem", f"torch cannot be imported ({error})")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return ("device", "ok", f"cuda: {torch.cuda.get_device_name()}, {memory:.0f} GiB")
    return ("device", "ok", f"cpu: {cores} cores")


def _vllm() -> Finding:
    from cppo_lab.rollouts.vllm.installation import HOW_TO_INSTALL, VERSIONS, installed_version, is_known

    version = installed_version()
    if version is None:
        return ("extra vllm", "missing", f"not installed; {HOW_TO_INSTALL}".replace("[", "\\["))
    if not is_known(version):
        return ("extra vllm", "missing", f"{version} is installed; the lab needs {VERSIONS}")
    return ("extra vllm", "ok", version)


def _extras() -> list[Finding]:
    findings = [_vllm()]
    for extra, module in _EXTRAS.items():
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        details = "installed" if found else f"not installed; pip install 'cppo-lab\\[{extra}]'"
        findings.append((f"extra {extra}", "ok" if found else "missing", details))
    return findings


def _plugins(names: Sequence[str]) -> list[Finding]:
    findings: list[Finding] = []
    for name in names:
        try:
            (plugin,) = load_plugins([name])
            findings.append((f"plug-in {plugin.name}", "ok", f"{plugin.path}, SHA-256 {plugin.sha256}"))
        except UserError as error:
            findings.append((f"plug-in {name}", "problem", str(error)))
    others = [name for name in installed_plugins() if name not in names]
    return [
        *findings,
        *((f"plug-in {name}", "missing", f"installed; --plugins {name} loads it") for name in others),
    ]


def _folders(output: Path) -> list[Finding]:
    from cppo_lab.training.preflight import writable

    findings: list[Finding] = []
    for what, path in (("conf", conf_dir()), ("sweeps", sweeps_dir())):
        found = any(path.rglob("*.yaml"))
        findings.append(
            (what, "ok" if found else "problem", str(path) if found else f"{path}: has no YAML files")
        )
    try:
        writable(output)
        free = shutil.disk_usage(output).free / 2**30
        findings.append(("output", "ok", f"{output.resolve()}, {free:.0f} GiB free"))
    except UserError as error:
        findings.append(("output", "problem", str(error)))
    return findings


def _store(output: Path) -> Finding:
    from cppo_lab.tracking.mlflow_store import Store
    from cppo_lab.tracking.store_address import tracking_uri

    uri = tracking_uri(None, output)
    try:
        Store(uri, "cppo-lab", output)
    except (UserError, OSError) as error:
        return ("tracking store", "problem", str(error))
    return ("tracking store", "ok", without_credentials(uri))


def _room(sweep: str, overrides: Sequence[str], config_dir: Path | None) -> list[Finding]:
    from cppo_lab.cli.checked_sweep import checked_sweep
    from cppo_lab.sweeps.cost import needed_disk, short_of_disk
    from cppo_lab.sweeps.worker_pool import default_jobs
    from cppo_lab.training.preflight import check_memory

    planned, _ = checked_sweep(sweep, overrides, config_dir)
    waiting = [run.config for run in planned.runs if run.folder.status != "FINISHED"]
    jobs = default_jobs(waiting)
    mebibytes = needed_disk(waiting, jobs) / 2**20
    size = f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"
    takes = f"{plural(len(waiting), 'run')} to do, whose checkpoints take about {size}"
    short = short_of_disk(waiting, planned.output, jobs)
    findings: list[Finding] = [(f"disk for {planned.name}", "problem" if short else "ok", short or takes)]
    for config in waiting:
        try:
            check_memory(config)
        except UserError as error:
            return [*findings, (f"memory for {planned.name}", "problem", str(error))]
    return [
        *findings,
        (f"memory for {planned.name}", "ok", "each run's weights, gradients and moments fit"),
    ]
