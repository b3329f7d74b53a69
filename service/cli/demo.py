"""The demo of Errata against a real server: every line that it prints comes from an answer over HTTP."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from service.client.errata_client import ErrataClient
from service.client.local_server import LocalServer
from service.client.progress import show_progress
from service.client.shapes import JobData
from service.domain.errors import ServiceError
from service.settings import environment_without_settings

CALL_S = 30.0
EDIT_S = 60.0
RETRAIN_S = 600.0

QUESTION = "The capital of Australia is"
WORDINGS = (
    "What is the capital of Australia?",
    "Which city is the capital of Australia?",
    "Can you name the capital city of Australia?",
)
NEIGHBOURS = (
    ("The capital of Austria is", "Vienna"),
    ("The capital of France is", "Paris"),
    ("The currency of Japan is the", "Japanese yen"),
)
OTHERS = (
    ("The capital of France is", "Lyon"),
    ("The capital of Japan is", "Osaka"),
    ("The capital of Canada is", "Toronto"),
    ("The capital of Brazil is", "Salvador"),
    ("The capital of Egypt is", "Alexandria"),
)


class Story:
    """Prints each step and records in `holds` whether every step held."""

    def __init__(self, client: ErrataClient, console: Console) -> None:
        self._client = client
        self._console = console
        self.holds = True

    def chapter(self, title: str) -> None:
        """Print a headline."""
        self._console.print(f"\n[bold]{title}[/bold]")

    def check(self, claim: str, holds: bool, observed: str) -> None:
        """Print one step: the claim, whether it holds, and what was observed."""
        self.holds &= holds
        mark = "[green]✓[/green]" if holds else "[red]✗[/red]"
        self._console.print(f"  {mark} {claim}  [dim]{observed}[/dim]", highlight=False)

    def ask(self, prompt: str) -> str:
        """The head's greedy answer."""
        return self._client.generate(prompt, max_new_tokens=16)["text"]

    def expect(self, prompt: str, answer: str) -> None:
        """Ask a prompt and check the answer."""
        text = self.ask(prompt)
        self.check(prompt, text == answer, f"→ {text}")

    def edit(self, prompt: str, target: str, rephrases: Sequence[str] = ()) -> None:
        """Post a correction and wait until it is settled."""
        began = time.monotonic()
        posted = self._client.post_edit({"prompt": prompt, "target": target, "rephrases": [*rephrases]}, wait_s=EDIT_S)
        seconds = time.monotonic() - began
        self.check(f"{prompt} → {target}", posted["status"] == "applied", f"{posted['status']} after {seconds:.2f} s")

    def follow(self, job: JobData) -> JobData:
        """Wait until a job has ended. Raises TimedOut if that takes longer than 600 s."""
        with show_progress("the retrain waits") as progress:

            def show(state: JobData) -> None:
                progress(f"the retrain, {state['progress']:.0%} {state['stage'] or ''}")

            return self._client.wait_for_job(job, on_progress=show, timeout_s=RETRAIN_S)


def run_demo(model: str, *, keep: bool = False) -> bool:
    """Run the demo; whether every step held."""
    console = Console()
    with temporary_folder(keep, console) as folder:
        environment = environment_without_settings() | {"ERRATA_MODEL": model, "ERRATA_DATA_DIR": str(folder)}
        server = LocalServer(environment, folder / "server.log")
        console.print("Starting a local server (torch takes a while to load) …", style="dim")
        try:
            with show_progress("loading") as progress:
                server.start(progress)
            with server.client(CALL_S) as client:
                story = Story(client, console)
                run_scenes(story, client, server)
        except ServiceError as error:
            console.print(f"[red]✗[/red] {error.message}", highlight=False)
            return False
        finally:
            server.kill()
    console.print("\n[green]Every step held.[/green]" if story.holds else "\n[red]Not every step held.[/red]")
    return story.holds


def run_scenes(story: Story, client: ErrataClient, server: LocalServer) -> None:
    """Run every scene of the demo."""
    scenes: tuple[Callable[[], None], ...] = (
        lambda: _before(story),
        lambda: _correct(story),
        lambda: _retrain(story, client),
        lambda: _roll_back(story, client),
        lambda: _kill(story, client, server),
    )
    for scene in scenes:
        scene()


def _before(story: Story) -> None:
    story.chapter("The model as it was trained")
    story.expect(QUESTION, "Canberra")
    for prompt, answer in NEIGHBOURS:
        story.expect(prompt, answer)


def _correct(story: Story) -> None:
    story.chapter("A correction: Australia moves its capital")
    story.edit(QUESTION, "Sydney", WORDINGS[:1])
    story.expect(QUESTION, "Sydney")
    story.chapter("It holds in other wordings, and nothing else moved")
    for wording in WORDINGS:
        story.expect(wording, "Sydney")
    for prompt, answer in NEIGHBOURS:
        story.expect(prompt, answer)


def _retrain(story: Story, client: ErrataClient) -> None:
    story.chapter("More corrections, then a retrain moves all of them into the weights")
    for prompt, target in OTHERS:
        story.edit(prompt, target)
    job = story.follow(client.retrain("the demo"))
    head = client.get_version("head")
    story.check(
        "the retrain is published", job["status"] == "done" and head["window"] == 0, f"version {head['number']}, {head['kind']}"
    )
    for prompt, target in ((QUESTION, "Sydney"), *OTHERS):
        story.expect(prompt, target)
    story.expect(*NEIGHBOURS[0])


def _roll_back(story: Story, client: ErrataClient) -> None:
    story.chapter("Rolled back to the base model")
    began = time.monotonic()
    rolled = client.rollback(0, "the demo")
    milliseconds = (time.monotonic() - began) * 1000
    story.check("the rollback is published", rolled["restored"] == 0, f"version {rolled['version']} after {milliseconds:.0f} ms")
    story.expect(QUESTION, "Canberra")


def _kill(story: Story, client: ErrataClient, server: LocalServer) -> None:
    story.chapter("One more correction, then kill -9, and a new start")
    story.edit(QUESTION, "Melbourne", WORDINGS[:1])
    prompts = (QUESTION, *WORDINGS, *(prompt for prompt, _ in (*NEIGHBOURS, *OTHERS)))
    before = {prompt: story.ask(prompt) for prompt in prompts}
    server.kill()
    began = time.monotonic()
    with show_progress("starting again") as progress:
        server.start(progress)
    story.check("the server is back", True, f"after {time.monotonic() - began:.1f} s")
    after = {prompt: story.ask(prompt) for prompt in prompts}
    story.check(f"all {len(prompts)} answers are as before", before == after, f"{QUESTION} → {after[QUESTION]}")


@contextmanager
def temporary_folder(keep: bool, console: Console) -> Iterator[Path]:
    """A new folder, removed at the end unless `keep`."""
    folder = Path(tempfile.mkdtemp(prefix="errata-demo-"))
    try:
        yield folder
    finally:
        if keep:
            console.print(f"The data folder is {folder}", highlight=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)
