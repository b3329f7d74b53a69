"""The names of versions as a list of models."""

from typing import Any

from service.api.openai_api.model_names import name_version, read_model_name, short_name
from service.api.state import ServerState
from service.domain.version import Version
from service.store import aliases, heads, versions

MOST_VERSIONS = 1_000  # the newest of those that are kept


def list_models(server: ServerState) -> list[dict[str, Any]]:
    """The head under its two names, the base, the aliases, and every version that is kept, the newest first."""
    name = short_name(server.base.name)
    with server.store.read() as connection:
        head = versions.get(connection, heads.read(connection).version)
        base = versions.get(connection, server.base_version)
        kept = versions.read_kept(connection, since=server.base_version, limit=MOST_VERSIONS)
        moves = aliases.read_all(connection)
        named_versions = {move.name: versions.get(connection, move.version) for move in moves if move.version is not None}
        aliased = [
            (f"{name}@{alias}", version)
            for alias, version in named_versions.items()
            if version.answers_on(server.base.fingerprint)
        ]
    named = [(name, head), (f"{name}@head", head), (f"{name}@base", base), *aliased]
    named += [(name_version(name, version.number), version) for version in kept]
    return [_describe(one, version, name) for one, version in named]


def read_model(server: ServerState, asked: str) -> dict[str, Any]:
    """What one name means now. Raises NotFound for a name of no version, Gone for one collected or of another base."""
    name = short_name(server.base.name)
    which = read_model_name(asked, name)
    with server.store.read() as connection:
        head = heads.read(connection).version
        if isinstance(which, str):
            own = {"head": head, "base": server.base_version}
            which = own[which] if which in own else server.read_alias(which)
        version = versions.get(connection, which)
    version.check_base(server.base.fingerprint)
    version.check_kept()
    return _describe(asked, version, name)


def _describe(name: str, version: Version, root: str) -> dict[str, Any]:
    """`root` and `version` are fields of this server, beside those of the OpenAI API."""
    created = int(version.created_at.timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": "errata", "root": root, "version": version.number}
