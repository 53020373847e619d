"""Published vocabularies for lessons and tests.

They are read from the folder that CANTOLYRIC_DATA names, and are not part of this package.
"""

import json
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from cantolyric.bpe import DEEPSEEK_PATTERN, GPT2_PATTERN, QWEN2_PATTERN, ByteLevelBPE

TOKENIZERS = Path(os.environ.get("CANTOLYRIC_DATA", "nowhere"), "tokenizers")
FILES = {
    "Qwen2": "qwen2/vocab.json",
    "DeepSeek-LLM": "deepseek-llm/ggml-vocab-deepseek-llm.gguf",
    "GPT-2": "gpt2/gpt2_tokenizer.json",
}


def gguf_metadata(
    path: str | Path,  # a GGUF file
) -> dict[str, Any]:
    "Read the metadata of a GGUF file, which precedes the tensors; a vocabulary file has nothing else."
    f = open(path, "rb")
    simple = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def number(fmt: str) -> Any:
        return struct.unpack("<" + fmt, f.read(struct.calcsize("<" + fmt)))[0]

    def value(kind: int) -> Any:
        if kind == 8:
            return f.read(number("Q")).decode()
        if kind == 9:
            inner, n = number("I"), number("Q")
            return [value(inner) for _ in range(n)]
        return number(simple[kind])

    with f:
        if f.read(4) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file")
        _, _, n = number("I"), number("Q"), number("Q")
        return {value(8): value(number("I")) for _ in range(n)}


@lru_cache(None)
def published(
    name: str,  # a key of FILES
) -> ByteLevelBPE:
    "Load a published vocabulary. Raises `FileNotFoundError` if it is not available."
    path = TOKENIZERS / FILES[name]
    if not path.exists():
        raise FileNotFoundError(f"CANTOLYRIC_DATA names no folder with {name}'s vocabulary")
    if name == "Qwen2":
        return ByteLevelBPE.from_files(path, path.with_name("merges.txt"), QWEN2_PATTERN, "NFC")
    if name == "GPT-2":
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        return ByteLevelBPE.from_files(model["vocab"], model["merges"], GPT2_PATTERN)
    meta = gguf_metadata(path)
    kinds = list(enumerate(zip(meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"])))
    return ByteLevelBPE.from_files(
        {t: i for i, (t, k) in kinds if k == 1},
        meta["tokenizer.ggml.merges"],
        DEEPSEEK_PATTERN,
        added={t: i for i, (t, k) in kinds if k in (3, 4)},
    )


def at_hand() -> list[str]:  # names
    "Return the names of the published vocabularies that are available."
    return [name for name, file in FILES.items() if (TOKENIZERS / file).exists()]
