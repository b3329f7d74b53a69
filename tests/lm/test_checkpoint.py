"""Overlays as bytes: a load gives the saved overlay or an error."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as to_safetensors

from service.domain.errors import Corrupt, Unreadable
from service.lm.checkpoint import load, save, to_bytes
from service.lm.checkpoint_folder import CheckpointFolder
from service.lm.intervention import Adapter, Intervention
from service.lm.last_tokens import LastTokens
from service.lm.overlay import EMPTY, Overlay
from service.lm.scope import Asked, KeyWords, Scope
from tests.builders import make_adapter

NAME = "model.layers.2.mlp.down_proj.weight"


def make_overlay(*, size: int = 6, seed: int = 0) -> Overlay:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        NAME: torch.randn(size, size, generator=generator),
        "model.layers.2.mlp.bias": torch.randn(size, generator=generator).to(torch.bfloat16),
    }
    return Overlay(tensors, make_adapter(seed=seed))


def planted(folder: Path, data: bytes) -> str:
    """Any bytes under their right name."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / f"{digest}.safetensors").write_bytes(data)
    return digest


def test_an_overlay_comes_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    overlay = make_overlay()
    assert overlay.adapter is not None

    loaded = load(checkpoints, save(overlay, checkpoints))

    assert loaded.tensors_digest == overlay.tensors_digest
    assert loaded.adapter is not None and loaded.adapter.last == LastTokens(3)
    for block, intervention in overlay.adapter.interventions.items():
        for name, tensor in intervention.tensors().items():
            assert torch.equal(loaded.adapter.interventions[block].tensors()[name], tensor)
        assert loaded.adapter.balance[block].count == overlay.adapter.balance[block].count
        assert torch.equal(loaded.adapter.balance[block].total, overlay.adapter.balance[block].total)


def test_overlays_without_adapter_gate_balance_or_anything_come_back_as_such(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    full = make_adapter((1,)).interventions[1]
    bare = Adapter({1: Intervention(full.rotation, full.source, full.bias)}, {}, last=LastTokens(5))

    loaded = load(checkpoints, save(Overlay({}, bare), checkpoints)).adapter
    assert loaded is not None and loaded.last == LastTokens(5) and loaded.balance == {}
    assert loaded.interventions[1].gate is None and loaded.interventions[1].gain is None
    assert load(checkpoints, save(EMPTY, checkpoints)).adapter is None
    assert load(checkpoints, save(Overlay({}, Adapter({})), checkpoints)).adapter is not None


@pytest.mark.parametrize("last", [LastTokens(3, "text_end", (4, 12, 3)), LastTokens(2, "both", (4,))])
def test_an_adapter_that_acts_elsewhere_says_so_in_a_format_that_older_releases_refuse(last: LastTokens, tmp_path: Path) -> None:
    checkpoints, adapter = CheckpointFolder(tmp_path), make_adapter((1,))

    loaded = load(checkpoints, save(Overlay({}, replace(adapter, last=last)), checkpoints)).adapter

    assert loaded is not None and loaded.last == last
    heads = [json.loads(from_header(to_bytes(Overlay({}, replace(adapter, last=one))))) for one in (last, LastTokens(3))]
    assert [head["format"] for head in heads] == [3, 1]
    assert heads[1]["adapter"] == {"last": 3, "blocks": [1], "counts": {"1": 1}}  # as checkpoints have always been


def test_a_scope_has_a_format_of_its_own_and_adapters_without_one_keep_their_bytes(tmp_path: Path) -> None:
    checkpoints, adapter = CheckpointFolder(tmp_path), make_adapter((1,))
    names = tuple(f"Tōkyō {number}" for number in range(30_000))  # more than a header holds
    scope = Scope(names, (KeyWords({"sea": 2.5}, 0.5, "Red"),), ("see",), "user\n", ((0x3040, 0x30FF),))

    loaded = load(checkpoints, save(Overlay({}, replace(adapter, scope=scope)), checkpoints)).adapter

    assert loaded is not None and loaded.scope == scope
    asking = replace(scope, asked=(Asked(("Tōkyō 1",), KeyWords({"mayor": 2.5}, 0.5), "of", ("ueno",)),))
    assert load(checkpoints, save(Overlay({}, replace(adapter, scope=asking)), checkpoints)).adapter.scope == asking
    heads = [json.loads(from_header(to_bytes(Overlay({}, replace(adapter, scope=one))))) for one in (asking, scope, None)]
    assert [head["format"] for head in heads] == [5, 4, 1] and heads[0]["adapter"] == heads[1]["adapter"] == heads[2]["adapter"]
    old = load(checkpoints, planted(tmp_path, to_bytes(Overlay({}, adapter)))).adapter
    assert old is not None and old.scope is None  # it acts on every prompt, as ever


def test_the_same_overlay_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    reordered = make_overlay()
    reordered = Overlay(dict(reversed(list(reordered.tensors.items()))), reordered.adapter)
    digests = [save(make_overlay(), checkpoints, meta={"a": 1, "b": [2]}), save(reordered, checkpoints, meta={"b": [2], "a": 1})]

    assert digests[0] == digests[1]
    assert save(make_overlay(seed=1), checkpoints, meta={"a": 1, "b": [2]}) != digests[0]
    assert save(make_overlay(), checkpoints, meta={"a": 2, "b": [2]}) != digests[0]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("place", [0, 9, 200, -1])
def test_one_changed_byte_anywhere_is_corrupt(tmp_path: Path, place: int) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    digest = save(make_overlay(), checkpoints)
    path = tmp_path / f"{digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        load(checkpoints, digest)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_cut_file_is_corrupt(tmp_path: Path, length: int) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    digest = save(make_overlay(), checkpoints)
    path = tmp_path / f"{digest}.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Corrupt):
        load(checkpoints, digest)


def test_saving_again_mends_a_damaged_file(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    digest = save(make_overlay(), checkpoints)
    (tmp_path / f"{digest}.safetensors").write_bytes(b"damaged")
    assert save(make_overlay(), checkpoints) == digest
    assert load(checkpoints, digest).adapter is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_neither_written_nor_loaded(tmp_path: Path, value: float) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    overlay = make_overlay()
    overlay.tensors[NAME][1, 1] = value

    with pytest.raises(Corrupt, match="not finite"):
        save(overlay, checkpoints)
    assert list(tmp_path.iterdir()) == []

    sound = to_bytes(make_overlay())
    one = torch.tensor([float(make_overlay().tensors[NAME][1, 1])]).numpy().tobytes()
    broken = planted(tmp_path, sound.replace(one, torch.tensor([value]).numpy().tobytes()))
    with pytest.raises(Corrupt, match="not finite"):
        load(checkpoints, broken)


def test_an_unknown_format_is_unreadable_and_not_corrupt(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    matrix, vector = torch.zeros(2, 4), torch.zeros(2)
    good = {"adapter/1/rotation": matrix, "adapter/1/source": matrix, "adapter/1/bias": vector}
    data = described({"last": 3, "blocks": [1], "counts": {}}, good, form=6)

    with pytest.raises(Unreadable, match="release"):
        load(checkpoints, planted(tmp_path, data))


def from_header(data: bytes) -> str:
    """Errata's part of a checkpoint's header."""
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["errata"]


def described(adapter: object, tensors: dict[str, torch.Tensor], *, form: int = 1) -> bytes:
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    return to_safetensors(tensors, metadata={"errata": json.dumps({"format": form, "meta": {}, "adapter": adapter})})


def test_files_with_the_right_digest_and_invalid_contents_are_corrupt(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    matrix, vector = torch.zeros(2, 4), torch.zeros(2)
    good = {"adapter/1/rotation": matrix, "adapter/1/source": matrix, "adapter/1/bias": vector}
    adapter = {"last": 3, "blocks": [1], "counts": {}}
    assert load(checkpoints, planted(tmp_path, described(adapter, good)))

    senseless = [
        b"",
        b"\xff" * 100,
        (2**40).to_bytes(8, "little") + b"{" * 50,
        to_safetensors({"a": vector}),
        to_safetensors({"a": vector}, metadata={"errata": "not json"}),
        described(adapter, {**good, "adapter/1/bias": torch.zeros(3)}),
        described(adapter, {**good, "adapter/1/gate": torch.zeros(5, 4)}),
        described(adapter, {**good, "stray": vector}),
        described({"last": 3, "blocks": [1, 2], "counts": {}}, good),
        described({"last": 3, "at": "start", "blocks": [1], "counts": {}}, good),
        described({"last": 3, "blocks": [1], "counts": {"1": 4}}, good),
        described({"blocks": [1]}, good),
        described(adapter, {**good, "scope": vector}, form=4),
        described(adapter, {**good, "scope": torch.tensor(list(b'{"names": []}'), dtype=torch.uint8)}, form=4),
        described(["wrong"], good),
        described(None, good),
    ]
    for data in senseless:
        with pytest.raises(Corrupt):
            load(checkpoints, planted(tmp_path, data))
