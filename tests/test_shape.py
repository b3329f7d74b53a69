"""Rules about the shape of the code that prose would not hold."""

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICE = ROOT / "service"
FILES = sorted(SERVICE.rglob("*.py"))

# Whom each room may import, no more than it does: first what the server is made of, then the server, then the commands.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "domain": set(),
    "telemetry": set(),
    "lm": {"domain"},
    "atlas": set(),
    "models": {"domain", "lm", "atlas"},
    "store": {"domain"},
    "wakeup": set(),
    "editors": {"domain", "lm"},
    "locality": {"domain", "lm", "editors"},
    "evaluation": {"domain", "lm"},
    "serving": {"domain", "lm"},
    "lifecycle": {"domain", "lm", "editors", "evaluation", "store"},
    "background": {"domain", "lm", "editors", "evaluation", "store", "lifecycle"},
    "settings": {"domain", "lm", "editors"},
    "api": {
        *("domain", "telemetry", "lm", "editors", "evaluation", "store", "serving", "lifecycle", "background", "settings"),
    },
    "runtime": {
        *("domain", "telemetry", "lm", "atlas", "models", "editors", "locality", "evaluation", "store", "wakeup", "serving"),
        *("lifecycle", "background", "settings", "api"),
    },
    "client": {"domain", "evaluation", "store", "settings"},
    "bench": {"domain", "lm", "atlas", "editors", "evaluation", "settings", "runtime", "client"},
    "cli": {
        *(
            "domain",
            "telemetry",
            "atlas",
            "models",
            "editors",
            "evaluation",
            "store",
            "lifecycle",
            "background",
            "settings",
            "api",
            "runtime",
        ),
        *("client", "bench"),
    },
    "__main__": {"cli"},
}

# The floors of the lifecycle, from the ground up. A file imports files of its own floor and of those below it.
LIFECYCLE_FLOORS: tuple[set[str], ...] = (
    {
        "settings",
        "editors",
        "crash_points",
        "lease",
        "lease_owner",
        "notifications",
        "measured_figures",
        "edit_cost",
        "length_checks",
        "edited_subjects",
        "edit_texts",
    },
    {
        "store_identity",
        "verify",
        "checkpoints",
        "head_follower",
    },  # what is on the disk, and what this process answers with
    {"context"},
    {
        "head_snapshot",
        "fit_inputs",
        "kept_edits",
        "job_hooks",
        "fenced",
        "job_claims",
        "keyed_requests",
        "fit_loop",
        "locality",
        "window_policy",
        "statuses",
        "stated_edits",
        "cadence_inputs",
        "next_edits",
        "next_tries",
    },  # what several verbs need
    {"submit", "retract", "revoke", "aliases"},  # verbs that only write rows
    {"publish", "rollback", "open_head", "damage", "context_versions"},  # verbs that move the head
    {"apply", "refit"},  # verbs that fit
    {"retrain"},
    {"rebase"},
)


def part_of(path: Path) -> str:
    return path.relative_to(SERVICE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The full names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno}: imports are absolute, so that they can be followed here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_used_by(path: Path) -> set[str]:
    """The other rooms of the service that a file imports from."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("service.")} - {part_of(path), "__version__"}


def occurrences(pattern: str, *, outside: set[str] = frozenset()) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES
        if str(path.relative_to(SERVICE)) not in outside
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if found.search(line.split("#")[0])
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"say in ALLOWED whom {part} may import"

    assert rooms_used_by(path) <= ALLOWED[part], f"{part} may not import {sorted(rooms_used_by(path) - ALLOWED[part])}"


def test_no_import_is_allowed_that_nothing_uses() -> None:
    used: dict[str, set[str]] = {part: set() for part in ALLOWED}
    for path in FILES:
        used[part_of(path)] |= rooms_used_by(path)

    assert {part: allowed - used[part] for part, allowed in ALLOWED.items() if allowed - used[part]} == {}


def test_what_is_allowed_is_of_parts_that_are_there_and_has_no_cycle() -> None:
    assert {part_of(path) for path in FILES} == set(ALLOWED)

    assert set(TopologicalSorter(ALLOWED).static_order()) == set(ALLOWED)


def test_the_lifecycle_is_built_in_floors() -> None:
    floor_of = {name: floor for floor, names in enumerate(LIFECYCLE_FLOORS) for name in names}
    files = {path: _name_in_lifecycle(path) for path in (SERVICE / "lifecycle").rglob("*.py") if path.stem != "__init__"}
    assert set(files.values()) == set(floor_of), "say in LIFECYCLE_FLOORS on which floor each file is"

    for path, name in files.items():
        used = {part.split(".")[2] for part in imports_of(path) if part.startswith("service.lifecycle.")}
        above = {other for other in used if floor_of[other] > floor_of[name]}
        assert not above, f"{path.name} may not import {sorted(above)}, which are on floors above it"


def _name_in_lifecycle(path: Path) -> str:
    return path.relative_to(SERVICE / "lifecycle").parts[0].removesuffix(".py")


def test_no_file_imports_itself_by_way_of_others() -> None:
    modules = {
        str(path.relative_to(ROOT)).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in FILES
    }
    used = {
        name: {module for full in imports_of(path) for module in (full, full.rpartition(".")[0]) if module in modules} - {name}
        for name, path in modules.items()
    }
    outer = {name: {module for module in found if not name.startswith(f"{module}.")} for name, found in used.items()}

    assert set(TopologicalSorter(outer).static_order()) == set(modules)


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for folder in ("service", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_names_of_tests_are_sentences_of_at_most_85_characters() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_") and len(node.name) > 85
    ]
    assert long == []


def test_sql_is_written_in_the_store_alone() -> None:
    outside = [
        place for place in occurrences(r"\bsa\.(select|insert|update|delete|text)\(|\.execute\(") if "service/store/" not in place
    ]
    assert outside == []


def test_http_is_spoken_by_the_client_alone() -> None:
    # An attack sends what the client would not send; a comparison of revisions must not depend on the client that it compares.
    speakers = {"client", "hostile", "compare"}
    paths = [*FILES, *(ROOT / "benchmarks").rglob("*.py")]
    found = {path for path in paths if "httpx" in {name.split(".")[0] for name in imports_of(path)}}

    assert {path.relative_to(ROOT).parts[1] for path in found} == speakers


def test_the_wheel_holds_the_service_and_nothing_else_at_top_level() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build == {"packages": ["service"]}
    assert (SERVICE / "store" / "migrations" / "env.py").is_file()


def test_tests_know_benchmarks_and_both_know_the_service_and_never_the_other_way() -> None:
    unknown = {"service": {"benchmarks", "tests"}, "benchmarks": {"tests"}}
    for folder, others in unknown.items():
        for path in (ROOT / folder).rglob("*.py"):
            assert not others & {name.split(".")[0] for name in imports_of(path)}, path.name


def test_the_domain_needs_nothing_but_the_standard_library() -> None:
    import sys

    for path in (SERVICE / "domain").glob("*.py"):
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert tops <= set(sys.stdlib_module_names) | {"service"}, path.name


@pytest.mark.parametrize("part", ["api", "store", "domain", "wakeup"])
def test_tensors_stay_out_of_the_api_and_the_store(part: str) -> None:
    for path in (SERVICE / part).rglob("*.py"):
        assert "torch" not in {name.split(".")[0] for name in imports_of(path)}, path.name


def test_nothing_loads_code_from_data() -> None:
    pattern = r"\bpickle\b|torch\.load\(|torch\.save\(|\beval\(|\bexec\(|yaml\.load\(|trust_remote_code\s*=\s*True"
    assert occurrences(pattern.replace(r"\beval\(", r"(?<![\w.])eval\(").replace(r"\bexec\(", r"(?<![\w.])exec\(")) == []


def test_the_environment_is_read_in_one_place() -> None:
    assert occurrences(r"os\.environ|getenv\(", outside={"settings.py", "cli/main.py"}) == []


def test_hooks_are_registered_in_one_file() -> None:
    # The loader is written into exports and runs there, on a model that nobody here serves.
    assert occurrences(r"register_\w*hook\(", outside={"lm/overlay.py", "lm/load_errata.py"}) == []


def test_threads_that_compute_keep_to_the_threads_that_the_store_pins() -> None:
    # These wait, answer health checks, read, write rows or sum up bytes: none of them multiplies matrices.
    others = ("api/readiness.py", "background/prompt_reservoir.py", "lm/export.py", "runtime/health_listener.py")
    outside = {*others, "serving/weight_seal.py", "models/gguf.py", "models/gguf_conversion.py"}

    assert occurrences(r"threading\.Thread\(", outside=outside) == [], "use ComputeThread"


def test_weights_are_read_and_placed_in_one_file() -> None:
    # The base counts its tensors, hashes them and watches them, which reads no single weight; the loader is written into exports.
    assert occurrences(r"get_parameter\(|setattr\(.*nn\.Parameter", outside={"lm/weights.py"}) == []


def test_files_of_checkpoints_are_touched_in_one_file_and_the_settings_choose_the_place() -> None:
    assert occurrences(r"CHECKPOINT_SUFFIX|TRASH_FOLDER|MARK_FILE", outside={"lm/checkpoint_folder.py"}) == []
    users = [path for path in FILES if any(name.startswith("service.lm.checkpoint_folder") for name in imports_of(path))]

    assert users == [SERVICE / "settings.py"]


def test_no_module_is_named_for_nothing() -> None:
    banned = {"utils", "helpers", "common", "misc", "manager", "engine", "core"}
    assert [str(path) for path in FILES if path.stem in banned] == []


def test_every_module_says_what_it_is() -> None:
    bodies = {path: path.read_text() for path in FILES}
    silent = [
        str(path.relative_to(ROOT)) for path, body in bodies.items() if body.strip() and not ast.get_docstring(ast.parse(body))
    ]
    assert silent == []


def test_the_page_of_settings_is_what_the_command_prints() -> None:
    from service.cli.settings_table import markdown

    assert (ROOT / "docs" / "settings.md").read_text() == markdown(), "run: errata settings > docs/settings.md"


def test_every_word_that_stands_where_an_id_could_stand_is_known_as_no_id() -> None:
    from fastapi.routing import APIRoute

    from service.api.path_ids import RESERVED
    from service.runtime.app import ROUTERS

    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    words = [route.path for route in routes if not route.param_convertors]
    taken = [(word, route.path) for word in words for route in routes if route.param_convertors and route.path_regex.match(word)]
    assert taken == [], f"name it among {RESERVED}, and give the other path by `one`"
