"""Which prompt suits a model without an adapter? Six wordings on validation requests, constrained, one sample each.

    python benchmarks/instruction.py write     writes the texts to benchmarks/results/instruction.json
    python benchmarks/instruction.py sheet F   the texts and the human lyrics in random order, to be rated blind
    python benchmarks/instruction.py           the table: ratings in the JSON, and the reference language model's bits

Ratings go into the JSON's `ratings`: per reader, one [sense, natural, topic] (1 to 5) for each row of the sheet. The
committed ones are by two language models that knew nothing of the prompts. The shipped `formats.instruction_text` is
`scene` below, except that it writes 兩 where the tested wording had 二 for two lines.
"""

import json
import random
import sys
from dataclasses import replace

import numpy as np
from _common import RESULTS, made, write

MODEL, SEED = "qwen2.5-coder-0.5b", 0
NUMERALS = "零一二三四五六七八九十"
EXAMPLES = (
    ("夜雨", "便利店簷下一排鞋\n落緊嘅雨洗淨條街"),
    ("返工", "朝早地鐵逼到變餅\n冷氣槽正正吹我條頸"),
)  # from our training verses
QUESTIONS = ("sense", "natural", "topic")


def count(e):
    return NUMERALS[e["tones"].count("/") + 1]


def sizes(e):
    return "，".join(f"第{NUMERALS[n]}行{len(line)}個字" for n, line in enumerate(e["tones"].split("/"), 1))


def finetuning(e):
    from cantolyric.formats import user_text

    return user_text(e)


def role(e):
    return (
        f"你是香港填詞人。請以「{e['topic']}」為題，寫{count(e)}行歌詞：{sizes(e)}。意思要連貫，句子要通順自然，要切題。"
        "用繁體中文，每句一行，不用標點，不要解釋。"
    )


def short(e):
    return f"寫{count(e)}行關於「{e['topic']}」的歌詞。用繁體中文，每句一行，句子要通順，不用標點，不要解釋。"


def scene(e):
    return (
        f"請用繁體中文寫一段關於「{e['topic']}」的粵語流行曲歌詞，共{count(e)}行。要有畫面，有感情，句子通順。"
        "直接寫歌詞，不要解釋，不要標點。"
    )


def role_examples(e):
    shown = "\n\n".join(
        f"例子{NUMERALS[n]}\n題目：{topic}\n歌詞：\n{lyrics}" for n, (topic, lyrics) in enumerate(EXAMPLES, 1)
    )
    return f"{role(e)}\n\n{shown}\n\n現在寫這一首\n題目：{e['topic']}\n歌詞："


def short_examples(e):
    shown = "".join(f"題目：{topic}\n歌詞：\n{lyrics}\n\n" for topic, lyrics in EXAMPLES)
    return f"{shown}題目：{e['topic']}\n歌詞："


PROMPTS = {f.__name__: f for f in (finetuning, role, short, scene, role_examples, short_examples)}


def requests():
    "At most two windows of two to four lines per validation topic; twelve in all."
    from cantolyric.data.pairs import lyric_pairs

    by_topic = {}
    for p in lyric_pairs("validation", len(lyric_pairs("validation")), 0):
        if p["source"] == "verses" and 2 <= p["lyrics"].count("\n") + 1 <= 4:
            by_topic.setdefault(p["topic"], []).append(p)
    return [{k: p[k] for k in ("topic", "tones", "lyrics")} for pairs in by_topic.values() for p in pairs[:2]][:12]


def written():
    "Write one text per prompt and request."
    from cantolyric.evaluation.decoding import Decoding, write_many
    from cantolyric.models import format_for, load_model

    model, tokenizer = load_model(MODEL)
    rows, format = requests(), format_for(model, tokenizer)
    texts = {
        name: write_many(
            model, tokenizer, rows, replace(format, ask=f), decoding=Decoding(batch_size=12), seed=SEED, desc=name
        )
        for name, f in PROMPTS.items()
    }
    return dict(model=MODEL, seed=SEED, requests=rows, texts=texts) | made("torch", "transformers")


def order(result):
    "(prompt, number of the request) of each row of the sheet."
    rows = [(name, k) for name in [*result["texts"], "human"] for k in range(len(result["requests"]))]
    random.Random(7).shuffle(rows)
    return rows


def text(result, name, k):
    return result["requests"][k]["lyrics"] if name == "human" else result["texts"][name][k]


def table(result):
    "Mean ratings and bits per character for each prompt."
    from cantolyric.evaluation.metrics import fluency, reference_model

    rows, model, out = order(result), reference_model(), {}
    for name in [*result["texts"], "human"]:
        at = [n for n, (which, _) in enumerate(rows) if which == name]
        means = np.mean([[reader[n] for n in at] for reader in result["ratings"]], axis=(0, 1))
        texts = [text(result, name, k) for k in range(len(result["requests"]))]
        out[name] = dict(zip(QUESTIONS, np.round(means, 2).tolist())) | dict(
            reference_bits=round(fluency(texts, model), 2)
        )
    return out


def main():
    path = RESULTS / "instruction.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if sys.argv[1:2] == ["write"]:
        write("instruction", written())
    elif sys.argv[1:2] == ["sheet"]:
        with open(sys.argv[2], "w", encoding="utf-8") as f:
            for n, (name, k) in enumerate(order(result), 1):
                f.write(f"#{n} 題目：{result['requests'][k]['topic']}\n{text(result, name, k)}\n\n")
    else:
        write("instruction", result | dict(table=table(result)))


if __name__ == "__main__":
    main()
