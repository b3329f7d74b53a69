"""The contenders of a stream of edits. Each is a set of settings of the same server, as variables of its environment."""

from collections.abc import Mapping

from service.editors.registry import DEFAULT_CONSOLIDATING, find_method, names_of

# No retrain is due by itself: a benchmark asks for each.
ON_REQUEST: Mapping[str, str] = {"ERRATA_WINDOW__DEFERRED": "1000000", "ERRATA_WINDOW__DEFERRED_S": "1000000000"}
# What an edit changes elsewhere refuses nothing.
_NO_LIMITS = {
    **{f"ERRATA_WINDOW__{name}": "1" for name in ("NEAR_LOSS", "SAME_SUBJECT_LOSS", "FAR_FALL", "FAR_LOSS")},
    "ERRATA_WINDOW__PROSE_DIVERGENCE": "1000000000",
}
# Without retrains: the adapter carries all edits for ever, and acceptance refuses no fit for its effect on other prompts.
_BAFT_ALONE = {
    "ERRATA_METHOD": "baft",
    "ERRATA_WINDOW__SOFT": "1000000",
    "ERRATA_WINDOW__HARD": "1000000",
    **_NO_LIMITS,
}
# Every fit and every retrain is published, whatever its effect on other prompts: shows what acceptance keeps away.
_ACCEPT_ALL = {**_NO_LIMITS, "ERRATA_WINDOW__RETRAIN_FALL": "1"}
# The adapter acts on every prompt.
_SCOPE_ALWAYS = {"ERRATA_BAFT__SCOPE": "always"}
# Edits stand in front of the prompts that they are about, until a version carries them; or for ever.
_CONTEXT = {"ERRATA_WINDOW__CONTEXT": "on"}
_CONTEXT_ALONE = {
    **_CONTEXT,
    "ERRATA_METHOD": DEFAULT_CONSOLIDATING,
    **ON_REQUEST,
    "ERRATA_WINDOW__CONTEXT_EDITS": "1000",
}
# Edits wait for the next retrain. Every retrain is major and is published, whatever its effect on other prompts.
# Edits that the tensors do not answer are fitted by BaFT on top, as always: a mark's `window` counts them.
_LOCFT_ALONE = {
    "ERRATA_WINDOW__STRATEGY": "buffered",
    "ERRATA_WINDOW__RETRAIN_LOSSES": "1",
    **_NO_LIMITS,
}

_NAMED: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "baft_paper": {**_BAFT_ALONE, "ERRATA_BAFT__PRESET": "paper"},
    "baft_unbounded": _BAFT_ALONE,
    "reft": {**_BAFT_ALONE, "ERRATA_BAFT__PRESET": "reft"},
    "locft_alone": _LOCFT_ALONE,
    "depth_first": {**_LOCFT_ALONE, "ERRATA_LOCFT__PRESET": "ft_m", "ERRATA_LOCFT__SURFACES": "edit"},
    "one_rephrase": {},
    "accept_all": _ACCEPT_ALL,
    "scope_always": _SCOPE_ALWAYS,
    "context": _CONTEXT,
    "context_alone": _CONTEXT_ALONE,
}
_OTHERS = [name for name in names_of("consolidating") if name != DEFAULT_CONSOLIDATING]
CONTENDERS: Mapping[str, Mapping[str, str]] = {
    **_NAMED,
    **{name: {"ERRATA_CONSOLIDATING_METHOD": name} for name in _OTHERS},
    **{f"{name}_alone": {**_LOCFT_ALONE, "ERRATA_CONSOLIDATING_METHOD": name} for name in _OTHERS},
}
TRAINED_REPHRASES = {"one_rephrase": 1}  # the number of an edit's rephrases that are open to training; 0 for other contenders

LABELS: Mapping[str, str] = {
    "default": "service default",
    "baft_paper": "BaFT, preset `paper`",
    "baft_unbounded": "BaFT default, unbounded window",
    "reft": "ReFT",
    "locft_alone": "LocFT-BF alone, its losses by BaFT",
    "depth_first": "depth-first fine-tuning (FT-M), its losses by BaFT",
    "one_rephrase": "service default, one trained rephrase",
    "accept_all": "service default, everything accepted",
    "scope_always": "service default, `scope: always`",
    "context": "service default with the context tier",
    "context_alone": "context tier alone, nothing fitted",
    **{name: f"service default, retrains by {find_method(name).title}" for name in _OTHERS},
    **{f"{name}_alone": f"{find_method(name).title} alone, its losses by BaFT" for name in _OTHERS},
}

# By default a deferred edit may wait minutes for other edits. In a stream edits follow at once, so the wait is shorter.
DEFERRED_S = 5.0
KEEP_LAST = 100  # the service's default


def build_environment(contender: str, *, every: int) -> dict[str, str]:
    """The settings of a contender. Where edits wait for retrains, a retrain is due when `every` edits wait.

    Versions are kept until the mark at which they are evaluated: an edit creates one version, sometimes two or three.
    """
    environment = {"ERRATA_WINDOW__DEFERRED_S": str(DEFERRED_S), "ERRATA_RETENTION__KEEP_LAST": str(max(KEEP_LAST, 4 * every))}
    environment |= CONTENDERS[contender]
    if "ERRATA_WINDOW__STRATEGY" in environment:
        environment |= {"ERRATA_WINDOW__DEFERRED": str(every)}
    return environment
