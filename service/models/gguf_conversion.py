"""The conversion of a GGUF file into a Hugging Face folder: the program of a child process, `python -m` this module.

A process of its own, because the loader of a file that somebody else made may want any amount of memory: here the kernel refuses
it. It writes JSON lines to its standard output, `{"step": …}` and at the end `{"done": true}` or `{"refused": sentence}`. It ends
when its standard input is closed, so it does not outlive the process that started it.
"""

import json
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from service.domain.errors import Refused
from service.lm.blocks import anatomy_of
from service.models.gguf_header import GgufHeader, read_header

SHARD_SIZE = "2GB"
# What a saved file says of the program that saved it: the same GGUF file gives the same files, whatever release of that reads it.
OF_THE_PROGRAM = {
    "config.json": ("transformers_version", "_model_name_or_path"),
    "generation_config.json": ("transformers_version",),
    "tokenizer_config.json": ("is_local", "local_files_only", "name_or_path"),
}


def convert(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file, in float32, and its tokenizer to `folder`, which must exist. `file` must be alone in its
    folder: the loader would read a configuration beside it.

    Raises Refused if the file is not one that the installed transformers can load whole, or not one that can be edited.
    """
    header = read_header(file)
    _say(step="reading the tokenizer")
    tokenizer = _load(AutoTokenizer.from_pretrained, file)
    _correct_split(tokenizer, header)
    _say(step="turning the weights into float32")
    model, report = _load(AutoModelForCausalLM.from_pretrained, file, dtype=torch.float32, output_loading_info=True)
    _check_whole(model, report, header)
    anatomy_of(model)
    _forget_quantisation(model)
    _say(step="writing the model")
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)
    for name, keys in OF_THE_PROGRAM.items():
        _drop_keys(folder / name, keys)


def _load(load: Any, file: Path, **options: Any) -> Any:
    return load(file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False, **options)


def _correct_split(tokenizer: Any, header: GgufHeader) -> None:
    """SmolLM reads each digit of a number alone; the loader, which does not know this split, would read numbers as GPT-2 does."""
    if header.text("tokenizer.ggml.pre") == "smollm":
        digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])


def _check_whole(model: Any, report: dict[str, Any], header: GgufHeader) -> None:
    """Refuse a model that lacks tensors, and a file of which the loader left something out without a word."""
    if report["missing_keys"] or report["mismatched_keys"]:
        raise Refused("The model's GGUF file lacks tensors that its header asks for.", field="model")
    if sum(parameter.numel() for parameter in model.parameters()) != header.elements:
        raise Refused("The model's GGUF file holds tensors that the conversion would lose: take its safetensors.", field="model")


def _forget_quantisation(model: Any) -> None:
    """The weights are plain now; the loader's marks would make saving and every later loading think of blocks."""
    model.hf_quantizer = None
    for holder in (model, model.config):
        for name in ("quantization_config", "is_quantized", "quantization_method"):
            if name in vars(holder):
                delattr(holder, name)


def _drop_keys(path: Path, keys: tuple[str, ...]) -> None:
    if path.is_file():
        content = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in content.items() if key not in keys}, indent=2) + "\n")


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def _end_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _describe(error: BaseException) -> str:
    if isinstance(error, Refused):
        return error.message
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "The model's GGUF file wants more memory than a file of its size needs, or than there is."
    return "The model's GGUF file is not one that the installed transformers can load."


def main() -> None:
    """Convert `argv[1]` into the folder `argv[2]` within `argv[3]` bytes of memory."""
    file, folder, memory = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    transformers_logging.disable_progress_bar()
    try:
        convert(file, folder)
    except OSError as error:
        # A full disk is no fault of the file. The loader's own OSErrors, about files that it did not find, have no number.
        _say(**({"errno": error.errno} if error.errno else {"refused": _describe(error)}))
    except Exception as error:  # the loader raises many unrelated classes; each means that it cannot take the file
        _say(refused=_describe(error))
    else:
        _say(done=True)


if __name__ == "__main__":
    main()
