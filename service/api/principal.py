"""The principal of a request. Without keys it is always `local`; every edit, version and event is stored with this name."""

from typing import Annotated

from fastapi import Depends

LOCAL = "local"


def principal() -> str:
    """The author of the changes that a request makes."""
    return LOCAL


Author = Annotated[str, Depends(principal)]
