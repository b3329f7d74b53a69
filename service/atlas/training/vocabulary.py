"""The model's own tokenizer: byte-level BPE, trained on the training text. Each digit is a token; BOS comes first."""

from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from service.atlas.skills import train_item
from service.atlas.training.corpus import fact_rows, generic_sentence

VOCABULARY = 3072
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CONTEXT = 512
_SKILL_SAMPLES = 20_000


def _training_text() -> list[str]:
    rng = Random("atlas vocabulary")
    facts = [f"{row.prompt} {row.answer}" for row in fact_rows()]
    items = [train_item(rng) for _ in range(_SKILL_SAMPLES)]
    return facts + [f"{item.prompt} {item.answer}" for item in items] + [generic_sentence(rng) for _ in range(2000)]


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Learns the merges. The same text gives the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
