"""Models of Hugging Face: ORG/NAME, ORG/NAME@revision. What a store was made with is pinned: a branch that moves later moves no
server.

The name of a base from the hub has the commit of its files in it, ORG/NAME@commit, and is kept in the head's row.
"""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from service.domain.errors import Refused, ServiceError, Unavailable
from service.lm.model_files import ADAPTER_FILE, CONFIG_FILES, TOKENIZER_FILES
from service.models.cache import NO_ROOM, Say

REFERENCE = re.compile(r"(?P<repository>[\w-][\w.-]*(/[\w-][\w.-]*)?)(@(?P<revision>[\w-][\w./-]{0,199}))?", re.ASCII)
DISK_ERRORS = (*NO_ROOM, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR)
COMMIT = re.compile(r"[0-9a-f]{40}")
PATTERNS = [ADAPTER_FILE, *CONFIG_FILES, *TOKENIZER_FILES, "*.safetensors", "*.safetensors.index.json"]


@dataclass(frozen=True)
class HubReference:
    """A repository and a revision of it: a branch, a tag or a commit; None: the repository's own choice."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a whole commit, which never moves."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None


def parse_reference(text: str) -> HubReference | None:
    """The reference of ORG/NAME[@revision]; None if the text is none, as a path is."""
    match = REFERENCE.fullmatch(text)
    return None if match is None else HubReference(match["repository"], match["revision"])


def pin(reference: HubReference, pinned_name: str | None) -> HubReference:
    """The reference at the commit of `pinned_name`, the name of the store's base, if that is of the same repository. A commit
    that is asked for by name is not replaced: if it is another one, the store refuses it.
    """
    pinned = None if pinned_name is None else parse_reference(pinned_name)
    if pinned is None or not pinned.is_commit or pinned.repository != reference.repository or reference.is_commit:
        return reference
    return pinned


def fetch(reference: HubReference, *, may_ask: bool, say: Say) -> tuple[Path, HubReference]:
    """The folder of a model's files, and the reference with their commit: from the hub's local cache, or from the hub if
    `may_ask`. A commit whose files are in the cache is not asked for.

    Raises Refused for a model that the hub does not have or does not give, Unavailable if the hub does not answer.
    """
    if reference.is_commit or not may_ask:
        try:
            return _located(reference, _snapshot(reference, ask=False))
        except LocalEntryNotFoundError as error:  # also of a copy that is not whole
            if not may_ask:
                raise Refused(
                    "The model is neither a local folder nor whole in the cache of Hugging Face, and the setting hub is false:"
                    " set ERRATA_HUB=true, or give a folder.",
                    field="model",
                ) from error
    say("asking Hugging Face for the model")
    try:
        return _located(reference, _snapshot(reference, ask=True))
    except Exception as error:  # the hub's client raises many unrelated classes
        raise _explain(error) from error


def _snapshot(reference: HubReference, *, ask: bool) -> Path:
    """The one call of the hub's client."""
    return Path(
        snapshot_download(reference.repository, revision=reference.revision, allow_patterns=PATTERNS, local_files_only=not ask)
    )


def _located(reference: HubReference, folder: Path) -> tuple[Path, HubReference]:
    """The hub's client names the folder of a snapshot after its commit."""
    return folder, HubReference(reference.repository, folder.name)


def _explain(error: Exception) -> ServiceError:
    if isinstance(error, RevisionNotFoundError):
        return Refused("The model has no such revision on Hugging Face.", field="model")
    if isinstance(error, RepositoryNotFoundError | GatedRepoError):
        return Refused(
            "The model is neither a local folder nor one that Hugging Face gives without a login: check its name, or log in.",
            field="model",
        )
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return Unavailable("The cache of Hugging Face cannot be written: look at its disk, or set HF_HOME to a folder elsewhere.")
    return Unavailable(
        "The model is neither a local folder nor whole in the cache of Hugging Face, which does not answer or is switched off"
        " (HF_HUB_OFFLINE): check the network, give a folder, or set ERRATA_HUB=false to use the cache alone."
    )
