"""KnowEdit's ConvSent: opinions on a topic, replies of either sentiment.

The edit is EasyEdit's: an instruction that names the sentiment (with EasyEdit's spelling), and the first reply as the target.
EasyEdit draws sentiment and question at random. Here even rows are edited to positive and odd rows to negative, and the question
is always EasyEdit's first one.
"""

from service.evaluation.datasets.fields import Fields
from service.evaluation.datasets.rows import BadRow
from service.evaluation.datasets.schema import Schema, has_fields
from service.evaluation.records import Record

QUESTION = "What do you think of {}?"
INSTRUCTIONS = ("From the sentiment dataset, answer {} postively.", "From the sentiment dataset, answer {} negatively.")


def _read(row: Fields, number: int) -> list[Record]:
    topic, replies = row.read_text("ent"), (row.read_texts("pos"), row.read_texts("neg"))
    if not all(replies):
        raise BadRow("pos and neg must hold a reply each")
    side = number % 2
    question = QUESTION.format(topic)
    return [
        Record(
            id=f"knowedit-convsent-{number}",
            prompt=INSTRUCTIONS[side].format(question),
            target=replies[side][0],
            subject=topic,
            generation=(question,),
            wanted=replies[side],
            opposite=replies[1 - side],
        )
    ]


KNOWEDIT_CONVSENT = Schema("knowedit_convsent", has_fields("ent", "pos", "neg"), _read)
