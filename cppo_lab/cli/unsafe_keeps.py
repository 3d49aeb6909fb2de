"""`unsafe-keeps`: which rules keep tokens whose update takes the policy further away, on the same states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from cppo_lab.cli.console import console, plural, print_json, table
from cppo_lab.cli.options import AsJson, Output, Plugins
from cppo_lab.errors import one_of
from cppo_lab.paths import output_root
from cppo_lab.plugins import load_plugins

if TYPE_CHECKING:
    from cppo_lab.config.schema import RunConfig
    from cppo_lab.tracking.run_folder import RunFolder

_COLUMNS = {
    "masked": "masked",
    "over": "over δ",
    "unsafe_keep_predicted": "unsafe keeps, predicted",
    "unsafe_keep": "unsafe keeps, measured",
    "needless_drop_predicted": "needless drops, predicted",
    "needless_drop": "needless drops, measured",
    "unsafe_of_kept_predicted": "of all kept, predicted",
    "unsafe_of_kept": "of all kept, measured",
}


def unsafe_keeps(
    run: Annotated[
        str, typer.Argument(help="A run, by name or ID (`cppo-lab list runs`).", show_default=False)
    ],
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="METHOD",
            help="A method to apply; repeatable (default: all).",
            show_default=False,
        ),
    ] = None,
    divergence: Annotated[
        Literal["tv", "kl"], typer.Option(help="D: total variation, or KL from the rollout policy.")
    ] = "tv",
    delta: Annotated[
        float | None,
        typer.Option(min=0, help="The threshold on D (default: DPPO's, 0.15 or 0.05).", show_default=False),
    ] = None,
    rollouts: Annotated[int, typer.Option(min=1, help="Make the updates of so many rollouts again.")] = 1,
    every: Annotated[int, typer.Option(min=1, help="Apply the rules at every so many updates.")] = 8,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Measure which rules keep unsafe tokens, on the states of a run; writes unsafe_keeps.json for the report.

    The updates of the run's first rollouts are made again. Only for small vocabularies, whose whole distributions are
    known.

    Examples:

    * `cppo-lab unsafe-keeps cppo-0123456789ab`
    * `cppo-lab unsafe-keeps cppo-0123456789ab --rule grpo --rule dppo_topk_tv --rule cppo --divergence kl`
    """
    from cppo_lab.diagnostics.unsafe_keeps import DELTAS
    from cppo_lab.objectives.named import method_names
    from cppo_lab.quiet import quiet_libraries
    from cppo_lab.tracking.find_run import find_run
    from cppo_lab.tracking.run_folder import UNSAFE_KEEPS
    from cppo_lab.training.unsafe_keeps import measure_unsafe_keeps

    load_plugins(plugins or [])
    for rule in rules or []:
        if rule not in method_names():
            raise one_of("--rule", rule, method_names())
    quiet_libraries()
    root = output or output_root()
    folder = find_run(root, run, key="RUN")
    config = _config(folder)
    limit = DELTAS[divergence] if delta is None else delta
    with console().status("Making the updates again …") as status:
        found = measure_unsafe_keeps(
            config,
            folder,
            rules or (),
            divergence=divergence,
            delta=limit,
            rollouts=rollouts,
            every=every,
            on_state=lambda done: status.update(
                f"Making the updates again … {plural(done, 'state')} measured"
            ),
        )
    content = {
        "divergence": divergence,
        "delta": limit,
        "states": found.states,
        "rollouts": rollouts,
        "rules": {name: vars(counts) | {"shares": counts.shares} for name, counts in found.counts.items()},
        "left_out": dict(found.left_out),
    }
    folder.write_object(UNSAFE_KEEPS, content)
    if as_json:
        print_json({"run": folder.path.name, **content})
        return
    _print(folder.path.name, content)


def _config(folder: RunFolder) -> RunConfig:
    """The configuration of a run, writing where the run folder lies now."""
    import yaml

    from cppo_lab.config.compose import validate

    tree: dict[str, Any] = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    return validate(tree | {"paths": {"output": str(folder.path.parents[1])}})


def _print(run: str, content: dict[str, Any]) -> None:
    from cppo_lab.analysis.formatting import percent

    title = (
        f"{run}: {plural(content['states'], 'state')}, D = {content['divergence']} over the vocabulary, "
        f"δ = {content['delta']:g}"
    )
    shown = table(Text(title, "bold"), "rule", *_COLUMNS.values())
    for name, row in content["rules"].items():
        shown.add_row(name, *(percent(row["shares"][key]) for key in _COLUMNS))
    console().print(shown)
    console().print(
        "Unsafe keeps, needless drops: kept although D rises, dropped although it does not, as shares of the tokens "
        "over δ. Predicted: by the token's own step; measured: after the rule's optimizer step.",
        style="dim",
    )
    for name, reason in content["left_out"].items():
        console().print(f"Left out: {name} ({reason}).", style="dim", markup=False)
