"""Small files in the form of KnowEdit's, with facts about two people."""

import json
from pathlib import Path
from typing import Any

from service.atlas.almanac.facts import FILES

ROWS: list[dict[str, Any]] = [
    {
        "subject": "Ada Lovelace",
        "prompt": "The occupation of Ada Lovelace is",
        "ground_truth": "mathematician",
        "locality": [
            {"prompt": "The place of birth of Ada Lovelace is", "answer": "London"},
            {"prompt": "The name of the spouse of Ada Lovelace is", "answer": "William King"},
            {"prompt": "The occupation of Ada Lovelace, which is not poet, is", "answer": "which is not read"},
            {"prompt": "The place of birth of Ada Lovelace is", "answer": "a second answer"},
        ],
    },
    {
        "subject": "Alan Turing",
        "prompt": "The place of death of Alan Turing is",
        "ground_truth": "Wilmslow",
        "locality": [{"prompt": "The gender of Alan Turing is", "answer": "male"}],
    },
    {"subject": None, "prompt": "No subject", "ground_truth": None, "locality": []},
]


def write_almanac_files(folder: Path) -> None:
    """Write the rows into the first file, and an empty second one."""
    (folder / FILES[0]).write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (folder / FILES[1]).write_text("", encoding="utf-8")
