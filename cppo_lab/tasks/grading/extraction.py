"""Find the answer that a response states."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cppo_lab.tasks.grading.words import NO_HEADING

_MARKED = re.compile(
    r"(?P<line_start>^[^\S\n]*)?#{4,}[^\S\n]*(?P<answer>(?:(?!####|</answer>)[^\n])*)", re.MULTILINE
)
_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
# A title, as chat models write: words without a number, on a line that starts with the mark.
_HEADING = re.compile(r"[*_\s]*[A-Za-z][A-Za-z\s,:'’()*_/&-]*")
_THINKING = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
# Bold or not: DAPO's prompt asks for such a line, and its reward accepts the words anywhere.
# The answer may stand on the next line.
_ANSWER_LINE = re.compile(r"\banswer\**[^\S\n]*:\**\s*\**([^\n]*)", re.IGNORECASE)
# A backslash consumes the next character, so that escaped braces do not count.
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_LISTED = re.compile(r"[\s$]{0,9}(?:[,;]|(?:,\s{0,9})?(?:\\text\s?\{\s*)?(?:and|or)(?:\s*\})?)[\s$]{0,9}")


@dataclass(frozen=True)
class _Box:
    """Offsets in the text: of the box, of its content, and of its end."""

    start: int
    content: int
    end: int


def _boxes(text: str) -> list[_Box]:
    """The closed boxes, ordered by their ends. Linear in the length of the text."""
    found = []
    opened: list[tuple[int, int] | None] = []
    for token in _BRACES.finditer(text):
        word = token.group()
        if word == "}":
            box = opened.pop() if opened else None
            if box is not None:
                found.append(_Box(*box, token.end()))
        elif word == "{":
            opened.append(None)
        elif word.endswith("{") and len(word) > 2:
            opened.append((token.start(), token.end()))
    return found


def _last_boxed(text: str) -> tuple[int, str] | None:
    """Start and content of the last box (the inner of two nested ones), joined with the boxes it is listed with."""
    boxes = _boxes(text)
    if not boxes:
        return None
    last = max(range(len(boxes)), key=lambda place: boxes[place].start)
    first = last
    while first > 0 and _LISTED.fullmatch(text, boxes[first - 1].end, boxes[first].start):
        first -= 1
    contents = dict.fromkeys(text[box.content : box.end - 1].strip() for box in boxes[first : last + 1])
    return boxes[last].start, ", ".join(contents)


def _bare(line: str) -> str:
    """An answer line without its markup: bold, code, displayed mathematics."""
    text = line.strip("*` \t\r")
    return text.removeprefix("\\[").removesuffix("\\]").strip() if text.startswith("\\[") else text


def _said(response: str) -> str:
    """What follows the model's thinking; nothing while it still thinks, everything where it does not."""
    tags = list(_THINKING.finditer(response))
    if not tags:
        return response
    return response[tags[-1].end() :] if tags[-1].group(1) else ""


def _is_heading(mark: re.Match[str]) -> bool:
    title = mark["answer"].strip()
    if mark["line_start"] is None or not _HEADING.fullmatch(title):
        return False
    words = re.findall(r"[a-z'’]+", title.lower())
    return max(map(len, words)) > 2 and not NO_HEADING.intersection(words)


def marked_answer(response: str, answer_line: bool = False) -> str | None:
    """The answer at the last mark of what `response` says after its thinking; None without one.

    Marks are `####` (to the end of its line), a closed `\\boxed{}` and a closed `<answer>`. Boxes in a list
    (`\\boxed{5} or \\boxed{6}`) are one answer of several parts. A line of words after `####` is a heading where there
    is another mark. A number that is merely mentioned is not an answer. With `answer_line`, the rest of the line after
    `Answer:` is one too.
    """
    said = _said(response)
    headings: list[tuple[int, str]] = []
    marks: list[tuple[int, str]] = []
    for mark in _MARKED.finditer(said):
        (headings if _is_heading(mark) else marks).append((mark.start(), mark["answer"]))
    marks += [(mark.start(), mark.group(1)) for mark in _TAGGED.finditer(said)]
    if answer_line:
        marks += [(mark.start(), _bare(mark.group(1))) for mark in _ANSWER_LINE.finditer(said)]
    boxed = _last_boxed(said)
    if boxed is not None:
        marks.append(boxed)
    marks = marks or headings
    return max(marks)[1].strip() if marks else None
