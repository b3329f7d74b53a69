"""How many wordings an edit is learned in. Plain numbers, no model."""

from typing import NamedTuple


class WordingCounts(NamedTuple):
    """At most so many wordings of an edit. The others than these two are forms of the prompt.

    At most `restated` are in the model's own words. At most `led`, never more than half, stand behind words that the model puts
    before its answer.
    """

    most: int
    restated: int = 0
    led: int = 0
