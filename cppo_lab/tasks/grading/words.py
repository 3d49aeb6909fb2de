"""Words that change the value of a number they stand with, so that none of them is a unit or a heading."""

from __future__ import annotations

# After a number, these change its value.
SCALES = (
    "hundred hundreds thousand thousands million millions billion billions trillion trillions dozen dozens score "
    "gross lakh lakhs crore crores grand k b t mm mn bn mil half tenth tenths hundredth hundredths thousandth "
    "thousandths twice double pi percent percentage pct pc basis squared cubed factorial mod modulo sqrt root"
)
OPERATIONS = "plus minus times over by divided multiplied added to point negative"
SECOND_THOUGHTS = (
    "or and not no nor but than versus vs if unless except is isn't was wrong incorrect false maybe perhaps actually "
    "rather instead either neither"
)
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
NO_UNITS: frozenset[str] = frozenset(" ".join((SCALES, OPERATIONS, SECOND_THOUGHTS, NUMBER_WORDS)).split())
"""Not the unit of a number."""
NO_HEADING: frozenset[str] = frozenset(" ".join((SCALES, SECOND_THOUGHTS, NUMBER_WORDS)).split()) - {
    "and",
    "or",
    "is",
}
"""Not a word of a heading: a line with one of them says something about the answer."""
CJK_SCALES = "十百千万萬亿億兆半倍成割折不非否或和与與"
"""Characters that change the value of a number before them, or take it back."""
