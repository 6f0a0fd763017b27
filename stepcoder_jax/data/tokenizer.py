"""A byte-level BPE tokenizer trained on given texts, saved as Hugging Face files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

END = "<|endoftext|>"

# A word with the spaces before it (so an indentation belongs to the first word of its
# line), one digit, punctuation with the newline behind it. A newline always ends a token:
# text cut after a line is tokenised as it is inside the whole.
PATTERN = r"[^\S\n]*[A-Za-z_]+|[^\S\n]?[0-9]|[^\S\n]?[^\sA-Za-z0-9_]+\n?|\n|[^\S\n]+"


def train(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Train on `texts` and write tokenizer.json and its configuration into `folder`.

    Every byte is a token, so every text can be written; `END` is the only special token.
    The same texts in the same order give the same files.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    fast.save_pretrained(folder)
