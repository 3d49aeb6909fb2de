"""A pytest plug-in that runs math-verify's own test-suite through the lab's grader: `make test-math-verify`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest
from math_verify import ExprExtractionConfig, LatexExtractionConfig

from cppo_lab.tasks.grading.extraction import marked_answer
from cppo_lab.tasks.grading.guards import MAX_CHARACTERS, refusal
from cppo_lab.tasks.grading.symbolic import equal_expressions, parsed

# The suite's predictions are whole solutions, which the lab never parses.
WHOLE_TEXT_CHARACTERS = 100_000
FEWEST = 250

_MATRIX = r"$\\begin{pmatrix}-\\\x0crac{7}{4}&-2\\\\4&\\frac{1}{4}\\\\\\end{pmatrix}$"
INTENDED_DIFFERENCES = {
    r"test_all.py::test_percent_notation[$28\\%$-28-1]": "a percentage is a hundredth: 28% is not 28",
    rf"test_all.py::test_complex_math_expressions[{_MATRIX}-{_MATRIX}-1-6]": "a control character is refused",
    r"test_all.py::test_math_extraction_edge_cases[$\\frac{5\\sqrt{42}}{27}$-pred11-1]": (
        "a solution without a mark; its whole text has more roots than an answer may have"
    ),
    r"test_yujianll.py::test_string_extraction[$1 - \\frac{1}{\\mathrm{e}}$-$1 + \\frac{1}{\\mathrm{e}}$-1]": (
        "1-1/e is not 1+1/e"
    ),
}
"""Tests that must fail, each with its reason."""

TARGETS = {"latex": LatexExtractionConfig(boxed_match_priority=0), "expr": ExprExtractionConfig()}
GRADED: set[str] = set()
"""Tests that asked the lab's grader."""


def graded(
    gold: str,
    pred: str,
    match_types: Sequence[str] = ("latex", "expr"),
    precision: int = 6,
    strict: bool = True,
    allow_set_relation_comp: bool = False,
) -> bool:
    """What the suite's `compare_strings` computes, by the lab's guards and its equality."""
    marked = marked_answer(pred)
    if refusal(*(pred, WHOLE_TEXT_CHARACTERS) if marked is None else (marked, MAX_CHARACTERS)) is not None:
        return False
    targets = [TARGETS[kind] for kind in match_types]
    return equal_expressions(
        parsed(gold, targets),
        parsed(pred, targets),
        decimals=precision,
        strict=strict,
        allow_set_relation_comp=allow_set_relation_comp,
    )


def _short(item: pytest.Item) -> str:
    return item.nodeid.rpartition("/")[2]


def _take_over(module: Any, test: str) -> bool:
    """Put the lab's grader where a module's tests look for math-verify's; whether they compare anything at all."""

    def asked(*arguments: Any, **options: Any) -> bool:
        GRADED.add(test)
        return graded(*arguments, **options)

    if hasattr(module, "compare_strings"):
        module.compare_strings = asked
    elif test.startswith("test_yujianll.py"):
        # It passes on what was parsed; the lab's grader must see the text itself.
        module.parse = lambda text: text
        module.verify = asked
    else:
        return False
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the intended differences: one that passes, or that the suite no longer has, is an error."""
    gone = INTENDED_DIFFERENCES.keys() - {_short(item) for item in items}
    if gone:
        raise pytest.UsageError(f"the suite has no test {sorted(gone)}")
    for item in items:
        reason = INTENDED_DIFFERENCES.get(_short(item))
        if reason is not None:
            item.add_marker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Run a test that compares with the lab's grader, and see that it asked it."""
    module = item.getparent(pytest.Module)
    assert module is not None
    compares = _take_over(module.obj, _short(item))
    yield
    if compares and _short(item) not in GRADED:
        raise RuntimeError("the test did not ask the lab's grader")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where hardly any test asked the lab: the suite is built otherwise than it was."""
    if len(GRADED) < FEWEST and session.testscollected > FEWEST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nonly {len(GRADED)} tests asked the lab's grader")
