"""Whether runs are comparable: same task, starting policy, evaluation and budget, unless a sweep varies them.

Whatever an axis of a sweep varies is meant to be compared. Any other difference in these keys makes two runs answer
different questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cppo_lab.analysis.formatting import listed, plural
from cppo_lab.analysis.load.axes import NAMED_CHOICES, Axes, Source, canonical, unique_records
from cppo_lab.analysis.load.run_record import RunRecord
from cppo_lab.config.seed_axes import is_seed_axis
from cppo_lab.errors import UserError

# Starting policies must agree in all but the seed; local files are compared by content.
SECTIONS = {"task": "task", "warmup": "starting policy", "model": "starting policy"}
# The trainer settings that decide how many tokens a run sees and how it is evaluated. The rest belong to the method.
TRAINER = {
    "trainer.steps": "budget",
    "trainer.prompts_per_step": "budget",
    "trainer.group_size": "budget",
    "trainer.prompts_per_minibatch": "budget",
    "trainer.epochs": "budget",
    "trainer.temperature": "evaluation",
    "trainer.evaluate_every": "evaluation",
    "trainer.evaluation_problems": "evaluation",
}
RECIPE = "starting_policy.recipe"
# What determines a starting policy, besides its seed.
_STARTS_WITH = ("task.", "model.", "warmup.", "trainer.device", "trainer.threads")
_MOST_NAMED = 3


class NotComparable(UserError):
    """The runs differ in keys that must agree; the message gives the keys, their values and the runs."""


@dataclass(frozen=True)
class Difference:
    """A key that must agree and does not; `values` holds pairs of a value and the names of the runs that have it."""

    key: str
    subject: str
    values: tuple[tuple[str, str], ...]

    @property
    def sentence(self) -> str:
        return f"{self.key} is {' and '.join(f'{value} in {runs}' for value, runs in self.values)}"


def check(differences: Sequence[Difference]) -> None:
    """Raise NotComparable if there are any."""
    if not differences:
        return
    told = "; ".join(difference.sentence for difference in differences[:_MOST_NAMED])
    more = len(differences) - _MOST_NAMED
    rest = f"; {plural(more, 'more key')} {'differs' if more == 1 else 'differ'}" if more > 0 else ""
    raise NotComparable(f"{told}{rest}: such runs are not comparable.")


def mark(differences: Sequence[Difference]) -> str:
    """The label of every figure and table, such as `not comparable: task and budget differ`; empty without any."""
    subjects = list(dict.fromkeys(difference.subject for difference in differences))
    if not subjects:
        return ""
    return f"not comparable: {listed(subjects)} {'differs' if len(subjects) == 1 else 'differ'}"


def find_differences(sources: Sequence[Source], axes: Axes) -> tuple[Difference, ...]:
    """The keys that must agree among the runs, do not, and are not an axis of a sweep."""
    keys = [key for key in axes.loose if subject(key) and not is_seed_axis(key)]
    if all(source.is_sweep for source in sources) and any(
        axis.split(".")[0] == "model" for axis in axes.order
    ):
        # Two sweeps of two models are meant to be compared, and the axis tells which is which.
        keys = [key for key in keys if not key.startswith("model.")]
    for choice in NAMED_CHOICES:
        if choice in keys:
            keys = [key for key in keys if key == choice or not _belongs(key, choice, axes)]
    keys.sort(key=lambda key: (key not in NAMED_CHOICES, key.count("."), key))
    names = _Names(sources, axes)
    found = [
        Difference(key, subject(key), tuple((v, names.of(runs)) for v, runs in axes.loose[key].items()))
        for key in keys
    ]
    # The recipe follows from these keys, so it matters only where they agree.
    return tuple(found or _other_recipes(unique_records(sources), axes, names))


def subject(key: str) -> str:
    """What must agree that the key belongs to: task, starting policy, budget or evaluation; empty for any other key."""
    return TRAINER.get(key) or SECTIONS.get(key.split(".")[0], "")


def uncontrolled(axes: Axes, differences: Sequence[Difference]) -> str | None:
    """A sentence on settings outside the algorithm that differ between runs although no axis varies them."""
    named = [axis for axis in axes.order if axis in NAMED_CHOICES and axis != "algo.name"]
    keys = [
        key
        for key in axes.loose
        if key not in axes.order
        and key.split(".")[0] != "algo"
        and not is_seed_axis(key)
        and key not in {difference.key for difference in differences}
        and not any(axes.follows(key, owner) for owner in named)
    ]
    if not keys:
        return None
    told = [f"{key} ({', '.join(axes.loose[key])})" for key in keys[:_MOST_NAMED]]
    more = [plural(len(keys) - _MOST_NAMED, "more key")] if len(keys) > _MOST_NAMED else []
    return (
        f"The runs differ in more than the algorithm: {listed([*told, *more])}. The names of the methods do not show "
        "this."
    )


def code_versions(records: Sequence[RunRecord]) -> str | None:
    """A sentence where runs come from versions of the lab that may give different results."""
    made = [record.info for record in records if record.info.get("versions")]
    versions: dict[str, int] = {}
    for info in made:
        version = info.get("result_version")
        text = "not recorded" if version is None else str(version)
        versions[text] = versions.get(text, 0) + 1
    if len(versions) > 1:
        told = "; ".join(f"version {version}: {plural(count, 'run')}" for version, count in versions.items())
        return f"The runs were made by versions of the lab that give different results ({told})."
    commits = {str(git["commit"])[:12] for info in made if (git := info.get("git") or {}).get("commit")}
    if "not recorded" in versions and len(commits) > 1:
        return (
            f"The runs were made at {len(commits)} commits of the lab ({', '.join(sorted(commits))}) and do not record "
            "whether these give the same results."
        )
    return None


def _belongs(key: str, choice: str, axes: Axes) -> bool:
    """Whether a key differs only because the choice it belongs to does; a task has its own warm-up."""
    groups = {"task.kind": ("task", "warmup"), "model.name": ("model",)}
    return key.split(".")[0] in groups.get(choice, ()) and axes.follows(key, choice)


def _other_recipes(records: Sequence[RunRecord], axes: Axes, names: _Names) -> list[Difference]:
    """Starting policies that differ although their configuration and seed are the same."""
    alike: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for record in records:
        start = record.info.get("starting_policy")
        facts = axes.facts[record.run_id]
        if record.config and isinstance(start, dict) and start.get("recipe"):
            made_of = [
                f"{key}={canonical(facts[key])}" for key in sorted(facts) if key.startswith(_STARTS_WITH)
            ]
            place = (*made_of, f"{start.get('seed')}")
            alike.setdefault(place, {}).setdefault(str(start["recipe"]), []).append(record.run_id)
    several = next((recipes for recipes in alike.values() if len(recipes) > 1), None)
    if several is None:
        return []
    return [Difference(RECIPE, "starting policy", tuple((r, names.of(runs)) for r, runs in several.items()))]


class _Names:
    """How to name runs in a sentence: by their sweeps where those cover them exactly, else by their folders."""

    def __init__(self, sources: Sequence[Source], axes: Axes) -> None:
        self._folders: Mapping[str, str] = {r.run_id: r.folder.name for r in unique_records(sources)}
        self._sweeps = [
            (source.name, frozenset(r.run_id for r in source.records if axes.facts[r.run_id]))
            for source in sources
            if source.is_sweep
        ]

    def of(self, runs: Sequence[str]) -> str:
        """`sweep a and sweep b`, or `cppo-0123456789ab, grpo-ba9876543210 and 3 more runs`."""
        wanted = set(runs)
        inside = [(name, members) for name, members in self._sweeps if members and members <= wanted]
        if len(self._sweeps) > 1 and inside and set().union(*(members for _, members in inside)) == wanted:
            return listed([f"sweep {name}" for name, _ in inside])
        shown = [self._folders[run] for run in runs[:_MOST_NAMED]]
        more = [plural(len(runs) - _MOST_NAMED, "more run")] if len(runs) > _MOST_NAMED else []
        return listed([*shown, *more])
