"""Who asks. Until there are keys everybody is `local`; every edit, version and event is written with this name."""

from typing import Annotated

from fastapi import Depends

LOCAL = "local"


def principal() -> str:
    """The author of what this request changes."""
    return LOCAL


Author = Annotated[str, Depends(principal)]
