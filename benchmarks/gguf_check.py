"""A GGUF file read three ways, and the model in it run two ways.

python benchmarks/gguf_check.py [file.gguf]    writes benchmarks/results/gguf.json; without a file, the catalogue's 0.5B
Every tensor is decoded by `cantolyric.gguf_blocks`, by the gguf package and by transformers, and compared bit by bit.
Times are processor seconds, with the file's bytes in memory. Then llama.cpp runs the file itself: the mean KL
divergence of its next-token distributions from those of transformers in float32, over all positions of five prompts.
Needs llama-cpp-python. It takes a few minutes. (It is not named gguf.py so that other scripts in this folder can import
the package gguf.)
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import gguf
import numpy as np
import torch
from _common import made, seconds, write
from llama_cpp import Llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from cantolyric.base import quiet_loading
from cantolyric.export import agreement, llama_logits, model_logits
from cantolyric.formats import FORMATS
from cantolyric.gguf_blocks import decode_blocks, decode_tensor
from cantolyric.model_files import model_path

LYRICS = "夜雨落緊，街燈一盞一盞咁暗\n我企喺你樓下，唔知應唔應該撳鐘\n佢話佢哋聽日先返嚟，我諗都係算啦"
CODE = """def contour(notes):
    "Which way the melody moves."
    steps = [b - a for a, b in zip(notes, notes[1:])]
    return "".join("+" if s > 0 else "-" if s < 0 else "=" for s in steps)


print(contour([60, 62, 62, 59]))
"""
PROMPTS = {
    "Cantonese": LYRICS,
    "written Chinese": "歌詞與旋律的聲調必須相合，否則聽眾會把字聽成另一個字。"
    "因此填詞人先找出每個音的高低，再選擇聲調相配的字。",
    "English": "Cantonese has six tones, and a melody that rises where the word falls turns one word into another. "
    "Songwriters therefore choose the words after the tune is finished, syllable by syllable.",
    "code": CODE,
    "chat": FORMATS["qwen2.5"].render({"topic": "夜雨", "tones": "2444/0442", "lyrics": LYRICS}),
}
THREADS = 2


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


def decode_all(path):
    "Per block type: the number of tensors, how many decode to equal bits, weights, and seconds of both decoders."
    found = defaultdict(list)
    for tensor in gguf.GGUFReader(path).tensors:
        found[tensor.tensor_type].append(tensor)
    result = {}
    for kind, tensors in found.items():
        raw = [np.array(t.data).reshape(-1, t.data.shape[-1]).view(np.uint8) for t in tensors]
        pairs = ((decode_blocks(r, kind.name), gguf.quants.dequantize(r, kind)) for r in raw)
        equal = sum(np.array_equal(bits(a), bits(b)) for a, b in pairs)
        result[kind.name] = dict(tensors=len(raw), equal=equal, weights=int(sum(t.n_elements for t in tensors)))
        if kind.name == "F32":
            continue  # nothing to decode
        ours = seconds(lambda: [decode_blocks(r, kind.name) for r in raw])
        theirs = seconds(lambda: [gguf.quants.dequantize(r, kind) for r in raw])
        times = dict(seconds=round(ours, 3), seconds_gguf=round(theirs, 3), speedup=round(theirs / ours, 2))
        result[kind.name] |= times
    return result


def load(path):
    "The model and tokenizer as transformers reads them from the file, in float32."
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def compare_loaded(path, model):
    "How many tensors transformers loads with the same bits; Llama's reordered projections are left out."
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == model.config.model_type)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    state = {names.get_name(n, try_suffixes=(".weight", ".bias")): v for n, v in model.state_dict().items()}
    same = [np.array_equal(bits(decode_tensor(t)), bits(state[t.name].numpy())) for t in gguf.GGUFReader(path).tensors]
    return dict(tensors=len(same), equal=sum(same))


def same_ids(path, tokenizer):
    "The ids of each prompt; llama.cpp and transformers have to agree on them."
    model = Llama(str(path), vocab_only=True, verbose=False)
    ids = {name: tokenizer(text, add_special_tokens=False)["input_ids"] for name, text in PROMPTS.items()}
    for name, text in PROMPTS.items():
        if (got := model.tokenize(text.encode(), add_bos=False, special=True)) != ids[name]:
            sys.exit(f"llama.cpp and transformers tokenize {name!r} differently: {got} and {ids[name]}")
    model.close()
    return ids


def rounded(a):
    return dict(
        positions=a.positions,
        mean_kl=float(f"{a.mean_kl:.3g}"),
        top1=round(a.top1, 4),
        max_difference=round(a.max_difference, 3),
    )


def run_both(path, model, ids):
    "Agreement of llama.cpp with transformers, per prompt and over all positions."
    theirs, ours = llama_logits(path, list(ids.values()), threads=THREADS), model_logits(model, list(ids.values()))
    each = {name: rounded(agreement([ours[n]], [theirs[n]])) for n, name in enumerate(ids)}
    return dict(threads=THREADS, **rounded(agreement(ours, theirs)), prompts=each)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--result", default="gguf", help="name of the file in benchmarks/results")
    given = parser.parse_args()
    path = given.file or model_path("qwen2.5-coder-0.5b")
    kinds, loaded = decode_all(path), {}
    spent = seconds(lambda: loaded.update(zip(("model", "tokenizer"), load(path))))
    loaded_by_transformers = dict(seconds=round(spent, 1), **compare_loaded(path, loaded["model"]))
    llama = run_both(path, loaded["model"], same_ids(path, loaded["tokenizer"]))
    versions = made("numpy", "gguf", "torch", "transformers", "llama-cpp-python")
    write(given.result, dict(**versions, file=path.name, kinds=kinds, loaded=loaded_by_transformers, llama_cpp=llama))


if __name__ == "__main__":
    main()
