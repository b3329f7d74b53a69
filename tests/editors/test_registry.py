"""The registry of editing methods: which there are, which names they may have, and what follows from them."""

import sys
from pathlib import Path
from typing import Literal, get_args

import pytest
from pydantic import ValidationError

from service.domain.errors import Refused
from service.editors import names, registry
from service.editors.baft.settings import BaftSettings
from service.editors.registry import find_method, is_consolidating, list_methods, names_of
from service.settings import Settings, SettingsWithoutMethods, variable_names

PLUGIN = """
from service.editors.presets import WithPresets
from service.editors.registry import Method

class Quiet(WithPresets):
    presets = {{}}
    depth: int = 3

METHOD = Method(name={name!r}, title="Quiet", role="consolidating", settings=Quiet, editor="quiet:open_editor")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a package with a method of a name, as pip would: a module, and metadata with an entry point."""

    def install_method(name: str, module: str = "quiet_method") -> None:
        (tmp_path / f"{module}.py").write_text(PLUGIN.format(name=name))
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[errata.methods]\n{name} = {module}:METHOD\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install_method
    list_methods.cache_clear()
    for module in [name for name in sys.modules if name.startswith("quiet")]:
        del sys.modules[module]


def test_each_folder_of_a_method_registers_it() -> None:
    assert {name: method.role for name, method in list_methods().items()} == {
        "baft": "incremental",
        "locft": "consolidating",
        "lora": "consolidating",
    }


def test_a_name_that_no_method_has_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(Refused, match="auto, baft, locft, lora") as caught:
        find_method("rome")

    assert caught.value.field == "method"


def test_auto_is_no_consolidating_method() -> None:
    assert [is_consolidating(name) for name in ("auto", "baft", "locft", "lora", "gone")] == [False, False, True, True, False]


def test_a_method_of_another_package_is_found_by_its_entry_point(install) -> None:
    install("quiet")
    list_methods.cache_clear()

    assert find_method("quiet").settings().depth == 3
    assert names_of("consolidating") == ("locft", "lora", "quiet")


@pytest.mark.parametrize("name", ["auto", "base", "rollback", "retract", "Quiet", "a-b", "", "x" * 17])
def test_a_method_cannot_have_a_name_that_means_something_else(install, name: str) -> None:
    install(name)
    list_methods.cache_clear()

    with pytest.raises(Refused, match="cannot have the name"):
        list_methods()


def test_two_methods_cannot_have_one_name(install) -> None:
    install("lora")
    list_methods.cache_clear()

    with pytest.raises(Refused, match="Two editing methods"):
        list_methods()


def test_no_method_has_the_name_of_a_setting() -> None:
    assert not set(list_methods()) & set(SettingsWithoutMethods.model_fields)


def test_every_method_has_a_group_of_settings_with_its_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in list_methods().items():
        assert isinstance(Settings().of_method(method.settings), method.settings)
        assert f"ERRATA_{name.upper()}__PRESET" in set(variable_names())
        for preset in method.settings.presets:
            assert method.settings(preset=preset).preset == preset
    monkeypatch.setenv("ERRATA_LORA__RANK", "5")
    assert Settings().lora.rank == 5


def test_a_setting_is_read_by_the_class_of_its_group() -> None:
    assert Settings(baft={"rank": 3}).of_method(BaftSettings).rank == 3


def test_the_types_of_fields_list_the_registered_methods() -> None:
    assert get_args(names.MethodName) == ("auto", *list_methods())
    assert get_args(names.ConsolidatingName) == names_of("consolidating")
    assert names.IncrementalName == Literal["baft"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"method": "rome"}, "method"),
        ({"consolidating_method": "baft"}, "consolidating_method"),
        ({"incremental_method": "lora"}, "incremental_method"),
    ],
)
def test_a_setting_that_names_no_such_method_is_refused(given: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings(**given)


@pytest.mark.parametrize(
    ("given", "default", "automatic"),
    [
        ({}, "auto", True),
        ({"method": "baft"}, "baft", False),
        ({"method": "lora"}, "lora", True),
        ({"window": {"strategy": "realtime"}}, "locft", True),
        ({"window": {"strategy": "buffered"}, "consolidating_method": "lora"}, "lora", True),
        ({"window": {"strategy": "buffered"}, "method": "baft"}, "locft", True),
    ],
)
def test_the_method_of_edits_that_name_none_follows_the_settings(given: dict[str, object], default: str, automatic: bool) -> None:
    settings = Settings(**given)  # type: ignore[arg-type]

    assert settings.default_method == default
    assert settings.cadence.automatic is automatic


def test_registering_loads_no_torch() -> None:
    assert "torch" not in Path(registry.__file__).read_text().replace("loads no torch", "").replace("of torch", "")
