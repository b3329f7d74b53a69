"""The arithmetic of a store: the dtype and the number of CPU threads that its model computes with.

The bytes of fits and answers depend on both, so they are chosen once and pinned in the store.
"""

from dataclasses import dataclass, replace

from service.domain.errors import Conflict

SET = "set"  # the reason for a value that the settings name


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """A dtype, a number of CPU threads of one tensor operation, and why each was chosen, in words for an operator."""

    dtype: str
    dtype_reason: str
    threads: int
    threads_reason: str


def keep_pinned(pinned: Arithmetic, *, dtype: str | None, threads: int | None) -> Arithmetic:
    """The pinned arithmetic under settings that name a dtype and threads, or None for either.

    Another number of threads takes the place of the pinned one: a machine with fewer CPUs must not stop a start. Raises Conflict
    for another dtype: overlays were fitted to a base of the pinned one.
    """
    if dtype is not None and dtype != pinned.dtype:
        raise Conflict(
            f"dtype must be {pinned.dtype} or auto, because this store was made with {pinned.dtype}: leave the setting out,"
            " or give another data_dir for a new store",
            field="dtype",
        )
    if threads is None or threads == pinned.threads:
        return pinned
    return replace(pinned, threads=threads, threads_reason=SET)
