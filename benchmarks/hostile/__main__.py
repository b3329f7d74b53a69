"""Attack real servers in every known way, with large numbers, and report the results.

An attack is a request or a flood of requests, another process on the machine, a wrong folder or a broken disk. A server
withstands an attack if it still answers other clients, loses nothing and reports the fault in a sentence. All attacks are on the
loopback, in temporary folders.
"""

import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.command import build_parser, parse_options, write
from benchmarks.hostile.attacks import every_attack
from benchmarks.hostile.health_probe import HealthProbe
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools
from benchmarks.servers import Zygote


def main() -> None:
    """The command. It fails if a server did not withstand an attack."""
    parser = build_parser(__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="only attacks whose names hold one of these texts")
    arguments = parse_options(parser)
    zygote = Zygote()
    rows = {row["attack"]: row for row in _read_earlier(arguments.results)} if arguments.only else {}
    new_rows: list[dict[str, Any]] = []
    try:
        for attack in every_attack():
            if not arguments.only or any(text in attack.name for text in arguments.only):
                new_rows.append(_run_attack(zygote, attack))
                print(new_rows[-1], flush=True)
                rows[attack.name] = new_rows[-1]
                write(arguments.results, "hostile", {"attacks": list(rows.values())}, is_quiet=True)
    finally:
        zygote.close()
    _print_table(new_rows)
    if not all(row["held"] for row in new_rows):
        sys.exit(1)


def _read_earlier(results: Path) -> list[dict[str, Any]]:
    """The results of earlier runs."""
    try:
        rows: list[dict[str, Any]] = json.loads((results / "hostile.json").read_bytes())["figures"]["attacks"]
    except FileNotFoundError:
        return []
    return rows


def _run_attack(zygote: Zygote, attack: Attack) -> dict[str, Any]:
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="errata-hostile-", ignore_cleanup_errors=True) as folder:
        tools = AttackTools(zygote, Path(folder))
        try:
            result = attack.make(tools)
        except Exception as error:  # an unforeseen error is a finding as well, and the other attacks must still run
            result = AttackResult(False, f"it ended with {type(error).__name__}: {error}"[:300])
    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    row = {
        "attack": attack.name,
        "held": result.is_held,
        "seen": result.finding,
        "seconds": time.monotonic() - started_at,
        "at": moment,
    }
    return row | _summarise_health("live", tools.health_probes) | _summarise_health("listener", tools.listener_probes)


def _summarise_health(name: str, probes: list[HealthProbe]) -> dict[str, Any]:
    seconds = sorted(value for probe in probes for value in probe.seconds)
    if not seconds:
        return {}
    return {
        f"{name}_p50_ms": 1000 * seconds[len(seconds) // 2],
        f"{name}_worst_ms": 1000 * seconds[-1],
        f"{name}_failures": sum(probe.failures for probe in probes),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("attack")
    table.add_column("held")
    table.add_column("/health/live, worst", justify="right", no_wrap=True)
    table.add_column("on its own port", justify="right", no_wrap=True)
    table.add_column("seen", overflow="fold")
    for row in rows:
        worst = [f"{row[key]:.0f} ms" if key in row else "-" for key in ("live_worst_ms", "listener_worst_ms")]
        table.add_row(row["attack"], "yes" if row["held"] else "[red]NO[/red]", *worst, row["seen"])
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
