"""A tokenizer that knows forty words, for tiny models of any family."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(40)]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def save_tokenizer(folder: Path, special: list[str], *added: str, pad: str = "<pad>", **settings: Any) -> int:
    """A tokenizer by words with these special tokens first; returns how many tokens it knew before ``added``."""
    words = {word: index for index, word in enumerate([*special, *WORDS])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.BertProcessing(("</s>", words["</s>"]), ("<s>", words["<s>"]))
    names = {"pad_token": pad, "unk_token": "<unk>", "eos_token": "</s>", "bos_token": "<s>", "cls_token": "<s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names, **settings)
    tokenizer.add_tokens(list(added))
    tokenizer.save_pretrained(folder)
    return len(words)
