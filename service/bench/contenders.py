"""Who takes part in a stream of edits: settings of one and the same server, as variables of its environment."""

from collections.abc import Mapping

# Without retrains: BaFT carries all edits for ever, and nothing is refused for what it does to the others.
_BAFT_ALONE = {
    "ERRATA_METHOD": "baft",
    "ERRATA_WINDOW__SOFT": "1000000",
    "ERRATA_WINDOW__HARD": "1000000",
    "ERRATA_WINDOW__CANARY_FALL": "1",
    "ERRATA_WINDOW__CANARY_FLOOR": "0",
}
# Edits wait for the next retrain, and every retrain is made from the base model and published, whatever it does to the others.
# What its tensors did not take is carried by BaFT on top, as always: a mark's `window` counts those.
_LOCFT_ALONE = {
    "ERRATA_WINDOW__STRATEGY": "buffered",
    "ERRATA_WINDOW__RETRAIN_LOSSES": "1",
    "ERRATA_WINDOW__CANARY_FALL": "1",
    "ERRATA_WINDOW__CANARY_FLOOR": "0",
}

CONTENDERS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "baft_paper": {**_BAFT_ALONE, "ERRATA_BAFT__PRESET": "paper"},
    "baft_unbounded": _BAFT_ALONE,
    "reft": {**_BAFT_ALONE, "ERRATA_BAFT__PRESET": "reft"},
    "locft_alone": _LOCFT_ALONE,
    "depth_first": {**_LOCFT_ALONE, "ERRATA_LOCFT__PRESET": "ft_m", "ERRATA_LOCFT__SURFACES": "edit"},
    "one_rephrase": {},
}
TRAINED_REPHRASES = {"one_rephrase": 1}  # how many of an edit's rephrases a contender may learn from; the others: none

LABELS: Mapping[str, str] = {
    "default": "service default",
    "baft_paper": "BaFT, preset `paper`",
    "baft_unbounded": "BaFT default, unbounded window",
    "reft": "ReFT",
    "locft_alone": "LocFT-BF alone, its losses by BaFT",
    "depth_first": "depth-first fine-tuning (FT-M), its losses by BaFT",
    "one_rephrase": "service default, one trained rephrase",
}

# A deferred edit may wait minutes for company by default. Here edits come one upon the other, and time is as much shorter.
DEFERRED_S = 5.0
KEEP_LAST = 100  # the service's default


def build_environment(contender: str, *, every: int) -> dict[str, str]:
    """The settings of a contender; where edits wait for retrains, one is made whenever `every` of them do.

    Versions are kept until the mark at which they are asked: an edit makes one, now and then two or three.
    """
    environment = {"ERRATA_WINDOW__DEFERRED_S": str(DEFERRED_S), "ERRATA_RETENTION__KEEP_LAST": str(max(KEEP_LAST, 4 * every))}
    environment |= CONTENDERS[contender]
    if "ERRATA_WINDOW__STRATEGY" in environment:
        environment |= {"ERRATA_WINDOW__DEFERRED": str(every)}
    return environment
