"""A model's own tokenizer, trained on its training text. Each digit is a token.

`byte_level`: byte-level BPE with BOS, as Llama-3 has it. `metaspace`: BPE over words that begin with a mark for the space, with
bytes for unknown characters, and one special token that ends a text and is added to none, as GPT-NeoX has it.
"""

import json
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from service.atlas.skills import train_item
from service.atlas.training.corpus import TrainingFacts, generic_sentence

VOCABULARY = 3072
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
END_OF_TEXT = "<|endoftext|>"
CONTEXT = 512
_SKILL_SAMPLES = 20_000
_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
_DIGITS = pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated")


def _training_text(facts: TrainingFacts) -> list[str]:
    rng = Random("atlas vocabulary")
    rows = [f"{row.prompt} {row.answer}" for row in facts.rows]
    items = [train_item(rng) for _ in range(_SKILL_SAMPLES)]
    return rows + [f"{item.prompt} {item.answer}" for item in items] + [generic_sentence(rng) for _ in range(2000)]


def train_tokenizer(facts: TrainingFacts, kind: str = "byte_level") -> PreTrainedTokenizerFast:
    """Learns the merges. The same text gives the same tokenizer. Raises ValueError for an unknown kind."""
    if kind == "byte_level":
        return _byte_level(facts)
    if kind == "metaspace":
        return _metaspace(facts)
    raise ValueError("kind must be byte_level or metaspace")


def _byte_level(facts: TrainingFacts) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_DIGITS, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(facts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return _fast(tokenizer, bos=BOS, eos=EOS, pad=PAD)


def _metaspace(facts: TrainingFacts) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=True),
            pre_tokenizers.Split("\n", behavior="isolated"),
            pre_tokenizers.Punctuation(behavior="isolated"),
            _DIGITS,
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    size = VOCABULARY - len(_BYTE_TOKENS)
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END_OF_TEXT], show_progress=False)
    tokenizer.train_from_iterator(_training_text(facts), trainer)
    return _fast(_with_bytes(tokenizer), bos=END_OF_TEXT, eos=END_OF_TEXT, pad=END_OF_TEXT)


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a token for each byte. The trainer can add tokens only as special ones, which text may not contain."""
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for token in _BYTE_TOKENS:
        vocabulary[token] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(state))


def _fast(tokenizer: Tokenizer, *, bos: str, eos: str, pad: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
