"""Why edits of a run were deferred: the groups of locality over their limits, or that the fit did not take the edit."""

import re
from collections import Counter
from collections.abc import Iterable

from service.client.shapes import EditData

NOT_TAKEN = "not taken"
_GROUP = re.compile(r"(?:^|; )(near|given|same_subject|far|prose): ")


def count_reasons(posted: Iterable[EditData]) -> dict[str, int]:
    """By group, the deferred edits that were refused for it; an edit may count for several. Edits of any other status do not
    count.
    """
    counts: Counter[str] = Counter()
    for edit in posted:
        if edit["status"] == "deferred":
            deferral = edit["deferral"]
            reason = "" if deferral is None else deferral["reason"] or ""
            counts.update(set(_GROUP.findall(reason)) or [NOT_TAKEN])
    return dict(counts)
