"""The trained location: the papers' positions, Errata's own rule, refusals, several blocks, and whole models."""

import pytest
from pydantic import ValidationError

from service.domain.errors import Refused
from service.editors.locft.location import find_tuned_location
from service.editors.locft.published_locations import choose_block
from service.editors.locft.settings import LocftSettings
from tests.builders import make_base
from tests.editors.locft.retrains import EDITS, fit, says
from tests.editors.taught_model import item, taught_base


@pytest.mark.parametrize(
    ("asked", "family", "depth", "width", "expected"),
    [
        ("auto", "llama", 32, 4096, (22, "published")),
        ("auto", "llama", 32, 960, (28, "late")),  # as deep as the papers' model of the family, and narrower
        ("auto", "qwen2", 48, 5120, (42, "late")),
        ("auto", "gpt2", 12, 768, (10, "late")),
        ("auto", "llama", 30, 576, (26, "late")),
        ("late", "llama", 32, 4096, (28, "late")),
        ("published", "llama", 32, 960, (22, "published")),
        ("published", "qwen2", 48, 5120, (11, "proportional")),
        ("published", "gpt2", 12, 768, (8, "share")),
        ("default", "qwen2", 80, 8192, (6, "default")),  # section 5.2 of the paper: Layer6 of the 7B model in all larger ones
        ("proportional", "qwen2", 80, 8192, (19, "proportional")),  # the same section: Layer19 of 80
        ("proportional", "qwen2", 64, 5120, (15, "proportional")),
        ("share", "qwen2", 28, 3584, (19, "share")),
        ("share", "llama", 32, 4096, (22, "share")),
    ],
)
def test_each_rule_gives_its_block_and_its_name(asked, family, depth, width, expected):
    assert choose_block(asked, family, depth, width) == expected


@pytest.mark.parametrize("preset", ["paper", "ft_l", "ft_m"])
def test_the_presets_of_the_papers_train_where_the_papers_do(preset):
    assert LocftSettings(preset=preset).position == "published"


@pytest.mark.parametrize(
    ("asked", "family", "depth"), [("default", "gpt2", 12), ("proportional", "gpt2", 12), ("default", "llama", 22)]
)
def test_a_position_that_no_paper_gives_or_the_model_lacks_is_refused(asked, family, depth):
    with pytest.raises(Refused) as caught:
        choose_block(asked, family, depth, 768)
    assert caught.value.field == "position"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"block": 4}, "locft.block"),
        ({"blocks": (1, 4)}, "locft.blocks"),
        ({"blocks": (-1,)}, "locft.blocks"),
        ({"position": "default"}, "locft.position"),
    ],
)
def test_a_block_beyond_the_depth_is_refused_with_its_setting_named(settings, field):
    with pytest.raises(Refused) as caught:
        find_tuned_location(make_base("llama").anatomy, LocftSettings(**settings))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("family", "kind", "changes"),
    [("mixtral", "down", {"num_local_experts": 2, "num_experts_per_tok": 1}), ("phi3", "up", {})],
)
def test_a_module_that_the_family_lacks_is_refused_with_an_alternative(family, kind, changes):
    with pytest.raises(Refused, match=f"{family}.*attention") as caught:
        find_tuned_location(make_base(family, **changes).anatomy, LocftSettings(kind=kind))
    assert caught.value.field == "locft.kind"


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("qwen2_moe", ("model.layers.3.mlp.shared_expert.down_proj.weight",)),
        ("gpt2", ("transformer.h.2.mlp.c_proj.weight", "transformer.h.2.mlp.c_proj.bias")),
        ("llama", ("model.layers.2.mlp.down_proj.weight",)),
    ],
)
def test_a_down_projection_is_found_in_every_kind_of_mlp(family, names):
    assert find_tuned_location(make_base(family).anatomy, LocftSettings(kind="down", position="published")).names == names


def test_block_and_blocks_at_once_are_refused():
    with pytest.raises(ValidationError, match="must not both be given"):
        LocftSettings(block=1, blocks=(1, 2))
    with pytest.raises(ValidationError, match="trains all blocks"):
        LocftSettings(kind="model", block=1)


def test_a_whole_model_is_all_its_blocks_and_never_its_embeddings():
    base = taught_base()

    place = find_tuned_location(base.anatomy, LocftSettings(kind="model"))

    assert place.label == "all of blocks 0 to 3"
    assert set(place.names) == {name for name, _ in base.model.named_parameters() if name.startswith("model.layers.")}


@pytest.mark.parametrize("where", [{"blocks": (3, 1)}, {"kind": "model"}])
def test_several_blocks_and_whole_models_learn_edits(where):
    fitted = fit(EDITS[:4], **where, learning_rate=5e-3)

    assert fitted.lost == ()
    assert set(fitted.overlay.tensors) == set(find_tuned_location(taught_base().anatomy, LocftSettings(**where)).names)
    assert all(says(fitted.overlay, edit.edit.prompt, edit.target) for edit in EDITS[:4])


@pytest.mark.parametrize(
    ("family", "depth", "width", "rate"),
    [
        ("llama", 32, 4096, 5e-4),
        ("mistral", 32, 4096, 5e-5),
        ("qwen2", 28, 3584, 5e-4),
        ("qwen2_moe", 24, 2048, 5e-4),
        ("llama", 8, 192, 5e-4 * (4096 / 192) ** 0.5),
        (
            "qwen2",
            28,
            1536,
            5e-4 * (4096 / 1536) ** 0.5,
        ),  # as deep as the papers' model of the family, and less than half as wide
        ("llama", 32, 960, 5e-4 * (4096 / 960) ** 0.5),
        ("qwen2", 64, 5120, 5e-4),
    ],
)
def test_the_rate_is_the_papers_for_their_models_and_rises_as_others_get_narrower(family, depth, width, rate):
    assert LocftSettings().rate_of(family, depth, width) == pytest.approx(rate)


def test_the_embedded_model_is_trained_at_the_measured_location_unless_a_setting_differs():
    def kind_and_block(**asked):
        settings = LocftSettings(**asked)
        return settings.measured_for("llama", 8, 192)

    assert kind_and_block() == ("mlp", 6)
    for asked in ({"preset": "paper"}, {"position": "share"}, {"kind": "down"}, {"block": 5}, {"blocks": (1, 2)}):
        assert kind_and_block(**asked) is None
    assert LocftSettings().measured_for("llama", 32, 4096) is None


def test_a_report_names_the_location_and_its_rule():
    (by_rule,) = fit([item("red is", "Z")], position="auto").reports.values()
    (given,) = fit([item("red is", "Z")], block=1).reports.values()

    assert (by_rule["location"], by_rule["position"]) == ("down-projection of block 3", "late")
    assert (given["location"], given["position"]) == ("down-projection of block 1", "given")
