"""The map of the code is true: what it names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PLACES = sorted(set(re.findall(r"`(service/[\w/]+\.py):\s+([\w.]+)`", PAGE)))


def names_in(path: Path) -> set[str]:
    """The functions and classes of a file, and the methods of its classes as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return names


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_every_place_that_the_map_names_is_there(file: str, name: str) -> None:
    assert name in names_in(ROOT / file)


def test_the_map_has_every_way_and_names_many_places() -> None:
    assert re.findall(r"^## The way of an? (\w+)$", PAGE, re.MULTILINE) == ["edit", "prompt", "retrain", "rollback", "rebase"]
    assert len(PLACES) > 40


def test_every_room_is_in_the_tree() -> None:
    tree = PAGE.split("```")[1]
    shown, above = set(), ""
    for indent, name in re.findall(r"^( +)(\w+/)", tree, re.MULTILINE):
        above = above if len(indent) > 2 else name
        shown.add(name if len(indent) == 2 else above + name)
    rooms = {f"{path.parent.relative_to(ROOT / 'service')}/" for path in (ROOT / "service").rglob("__init__.py")} - {"./"}

    assert rooms <= shown
    assert {name for name in shown if not (ROOT / "service" / name).is_dir()} == set()


def test_every_link_in_the_pages_leads_to_a_file() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    targets = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]

    assert [f"{page.name}: {target}" for page, target in targets if not (page.parent / target).exists()] == []
