"""Source trees of two revisions, each run as a program of its own.

Nothing of a tree is imported here: between two revisions every module may have another name.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND_S = 300.0
WIDTH = "130"  # columns of a help text
PREFIX = "ERRATA_"


@dataclass(frozen=True)
class Tree:
    """The source of one revision. `neutral` is a folder of its neutral sentences, which never change, for its next server."""

    side: str  # before or after
    folder: Path
    neutral: Path
    commit: str
    is_changed: bool  # whether the tree differs from its commit

    @property
    def name(self) -> str:
        """The short commit, marked if the tree has uncommitted changes."""
        return self.commit[:12] + (" and changes" if self.is_changed else "")

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        """This process' environment with the tree first on the path, and with these settings alone (names without prefix)."""
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        fixed = {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        terminal = {"COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
        return inherited | fixed | terminal | {PREFIX + name: value for name, value in settings.items()}

    def python(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run Python in the tree and wait for its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment(settings),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def errata(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run the `errata` command of the tree."""
        return self.python("-m", "service", *arguments, **settings)

    def check(self) -> None:
        """Raise if Python imports the service from elsewhere, such as an installed one."""
        module_file = self.python("-c", "import service; print(service.__file__)").stdout.strip()
        if not Path(module_file).resolve().is_relative_to(self.folder.resolve()):
            raise RuntimeError(f"Python in the tree {self.side} imports another service")


@contextmanager
def open_tree(side: str, source: str | None, room: Path) -> Iterator[Tree]:
    """A tree: this program's own (None), a folder, or a revision, which is checked out below `room` and removed at the end."""
    neutral = room / f"neutral-{side}"
    neutral.mkdir()
    if source is None or Path(source).is_dir():
        folder = REPOSITORY if source is None else Path(source).resolve()
        is_changed = bool(run_git(folder, "status", "--porcelain"))
        yield _checked(Tree(side, folder, neutral, run_git(folder, "rev-parse", "HEAD"), is_changed))
        return
    commit = run_git(REPOSITORY, "rev-parse", "--verify", f"{source}^{{commit}}")
    folder = room / f"tree-{side}"
    try:
        run_git(REPOSITORY, "worktree", "add", "--detach", str(folder), commit)
        yield _checked(Tree(side, folder, neutral, commit, is_changed=False))
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=REPOSITORY, capture_output=True, check=False)


def run_git(folder: Path, *arguments: str) -> str:
    """The output of git in a folder. If git fails, the program ends with git's message."""
    process = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(process.stderr.strip())
    return process.stdout.strip()


def _checked(tree: Tree) -> Tree:
    tree.check()
    return tree
