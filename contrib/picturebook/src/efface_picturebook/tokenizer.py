"""A CLIP tokenizer for the picturebook's words."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator

from transformers import CLIPTokenizer

from efface_picturebook import world

START, END, SUFFIX = "<|startoftext|>", "<|endoftext|>", "</w>"
LENGTH = 32
SIZE = 400
LETTERS = string.ascii_lowercase + string.digits + ".,-'!?:;()"


def build() -> CLIPTokenizer:
    """Train byte-pair merges on the words of the world; single letters make every other word tokenize."""
    from tokenizers import Tokenizer, models, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=[START, END, *LETTERS, *(letter + SUFFIX for letter in LETTERS)],
        initial_alphabet=list(LETTERS),
        end_of_word_suffix=SUFFIX,
        show_progress=False,
    )
    bpe = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX, unk_token=END))
    bpe.train_from_iterator(_weighted_words(), trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=LENGTH)


def _weighted_words() -> Iterator[str]:
    """Every word several times, held-out synonyms less often: they split first when the room is short."""
    rare = {word for one in world.THINGS for word in one.held_out}
    for word in world.words():
        yield from [word] * (2 if word in rare else 5)
