"""`/aliases`: names of versions that people move, such as `stable`, with their history."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from service.api.principal import Author
from service.api.problems import GONE, INVALID, NOT_FOUND, UNAVAILABLE, responses
from service.api.schemas.aliases import AliasesOut, AliasIn, AliasOut
from service.api.state import State
from service.api.strict_json import StrictRoute
from service.api.text_types import Name
from service.lifecycle.aliases import remove_alias, set_alias
from service.store import aliases

router = APIRouter(prefix="/aliases", tags=["versions"], route_class=StrictRoute)
MOST_MOVES = 100
Alias = Annotated[str, Path(max_length=64, description="the alias", examples=["stable"])]


@router.get("", summary="List aliases", responses=responses(UNAVAILABLE))
def list_aliases(server: State) -> AliasesOut:
    """Every alias with the version that it names, in order of name."""
    with server.store.read() as connection:
        return AliasesOut(items=[AliasOut.of(moved) for moved in aliases.read_all(connection)])


@router.get("/{alias}", summary="Read the moves of an alias", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def get_alias(server: State, alias: Alias) -> AliasesOut:
    """Its last hundred moves, newest first. The moves of an alias that was removed stay."""
    with server.store.read() as connection:
        moves = aliases.read_history(connection, alias, limit=MOST_MOVES)
        if not moves:
            aliases.get(connection, alias)
    return AliasesOut(items=[AliasOut.of(moved) for moved in moves])


@router.put("/{alias}", summary="Let an alias name a version", responses=responses(NOT_FOUND, GONE, INVALID, UNAVAILABLE))
def put_alias(server: State, alias: Alias, body: AliasIn, author: Author) -> AliasOut:
    """Make an alias, or move it. The head stays where it is; the version is kept as long as an alias names it."""
    return AliasOut.of(set_alias(server.lifecycle, alias, body.version, author=author, reason=body.reason))


@router.delete("/{alias}", summary="Remove an alias", responses=responses(NOT_FOUND, INVALID, UNAVAILABLE))
def delete_alias(
    server: State, alias: Alias, author: Author, reason: Annotated[Name | None, Query(description="why")] = None
) -> AliasOut:
    """The name answers no more. Its history stays, and it may be made again."""
    return AliasOut.of(remove_alias(server.lifecycle, alias, author=author, reason=reason))
