"""The shipped adapter on held-out requests: the table of lesson 51, at a size that means something.

python benchmarks/evaluation.py    writes benchmarks/results/evaluation.json
"""
from _common import made, write

from cantolyric.evaluation import evaluate
from cantolyric.lyricist import Lyricist

REQUESTS = 192


def main():
    x = Lyricist.from_pretrained()
    table = evaluate(x.model, x.tokenizer, REQUESTS, x.format, desc="writing")
    write("evaluation", table.to_dict() | made("torch"))
    print(table)


if __name__ == "__main__": main()
