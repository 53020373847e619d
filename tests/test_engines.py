"""Tone constraints in other engines: vLLM's processor behind its base class, llama.cpp on the real GGUF file."""

import importlib
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum, auto
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)

from cantolyric.base import load_base
from cantolyric.constraint import vllm as ours
from cantolyric.constraint.automaton import ToneConstraint
from cantolyric.constraint.vocabulary import TokenTable
from cantolyric.template.template import ToneTemplate

# vLLM


def documented() -> ModuleType:
    "The interface as vLLM's documentation has it, for machines without vLLM."

    class Direction(Enum):
        UNIDIRECTIONAL = auto()
        SWAP = auto()

    @dataclass(frozen=True)
    class BatchUpdate:
        batch_size: int
        removed: list
        added: list
        moved: list

    class LogitsProcessor(ABC):
        @classmethod
        def validate_params(cls, sampling_params):
            return None

        @abstractmethod
        def __init__(self, vllm_config, device, is_pin_memory): ...

        @abstractmethod
        def apply(self, logits): ...

        @abstractmethod
        def is_argmax_invariant(self): ...

        @abstractmethod
        def update_state(self, batch_update): ...

    made = ModuleType("vllm.v1.sample.logits_processor")
    made.LogitsProcessor, made.BatchUpdate, made.MoveDirectionality = LogitsProcessor, BatchUpdate, Direction
    return made


@pytest.fixture
def interface(monkeypatch):
    "vLLM's own module if it is installed, otherwise the documented one."
    name = "vllm.v1.sample.logits_processor"
    try:
        module = importlib.import_module(name)
    except ImportError:
        module = documented()
        monkeypatch.setitem(sys.modules, name, module)
    ours._processor_class.cache_clear()
    yield module
    ours._processor_class.cache_clear()


@pytest.fixture
def processor(interface, monkeypatch):
    "A processor as vLLM makes it, for the shipped base, and its tokenizer."
    _, tokenizer = load_base()
    config = SimpleNamespace(tokenizer=None, model="tiny", get_vocab_size=lambda: len(tokenizer))
    monkeypatch.setattr(ours, "table_of", lambda config: TokenTable.from_tokenizer(tokenizer, config.get_vocab_size()))
    made = ours.ToneProcessor(SimpleNamespace(model_config=config), torch.device("cpu"), False)
    assert isinstance(made, interface.LogitsProcessor) and not made.is_argmax_invariant()
    return made, tokenizer


def request(tones):
    return SimpleNamespace(extra_args=None if tones is None else {"tones": tones})


def test_vllm_requests_join_leave_and_move(interface, processor):
    "Forty requests through four rows, condensed and swapped as the engine does: every text has its tones."
    made, tokenizer = processor
    rng = np.random.default_rng(0)
    waiting = [(k, ["23", "30/24", None, "3324", "0/0/0"][k % 5]) for k in range(40)]
    rows, finished = [], {}
    while waiting or rows:
        removed = [k for k, r in enumerate(rows) if r["done"]]
        kept = [r for r in rows if not r["done"]]
        added, moved = [], []
        for hole in list(removed):  # a new request takes the place of one that left
            if waiting:
                rows[hole] = new = dict(id=waiting[0][0], tones=waiting.pop(0)[1], output=[], done=False)
                added.append((hole, request(new["tones"]), None, new["output"]))
                removed.remove(hole)
        while len(rows) < 4 and waiting:
            rows.append(new := dict(id=waiting[0][0], tones=waiting.pop(0)[1], output=[], done=False))
            added.append((len(rows) - 1, request(new["tones"]), None, new["output"]))
        for hole in sorted(removed):  # the last request moves into a hole
            while rows and rows[-1]["done"]:
                rows.pop()
            if hole < len(rows):
                moved.append((len(rows) - 1, hole, interface.MoveDirectionality.UNIDIRECTIONAL))
                rows[hole] = rows.pop()
        if len(rows) > 1 and rng.random() < 0.5:
            a, b = sorted(rng.choice(len(rows), 2, replace=False).tolist())
            moved.append((a, b, interface.MoveDirectionality.SWAP))
            rows[a], rows[b] = rows[b], rows[a]
        assert len(kept) <= len(rows) <= 4
        changed = removed or added or moved
        made.update_state(interface.BatchUpdate(len(rows), removed, added, moved) if changed else None)
        if not rows:
            break
        logits = made.apply(torch.tensor(rng.normal(size=(len(rows), len(tokenizer))), dtype=torch.float32))
        for row, r in enumerate(rows):
            assert r["tones"] is None or bool(logits[row].isneginf().any())
            r["output"].append(int(logits[row].argmax()))
            end = r["output"][-1] in TokenTable.from_tokenizer(tokenizer).end if r["tones"] else len(r["output"]) == 5
            if end:
                r["done"], finished[r["id"]] = True, r
    assert sorted(finished) == list(range(40))
    for r in finished.values():
        text = tokenizer.decode(r["output"], skip_special_tokens=True)
        assert r["tones"] is None or ToneTemplate.parse(r["tones"]).matches(text), (r["tones"], text)


@pytest.mark.parametrize("tones, says", [("2x", "column 2"), (7, "expected text"), ("", "no line")])
def test_vllm_refuses_a_template_that_is_none(interface, tones, says):
    with pytest.raises(ValueError, match=says):
        ours.ToneProcessor.validate_params(SimpleNamespace(extra_args={"tones": tones}))
    ours.ToneProcessor.validate_params(SimpleNamespace(extra_args=None))


def test_vllm_finds_the_processor_by_its_name(interface):
    "As `--logits-processors cantolyric.constraint.vllm:ToneProcessor` does."
    module, _, name = "cantolyric.constraint.vllm:ToneProcessor".partition(":")
    assert issubclass(getattr(importlib.import_module(module), name), interface.LogitsProcessor)


# llama.cpp


@pytest.mark.qwen
def test_llama_cpp_writes_what_transformers_writes():
    "Greedy, on the same GGUF file: the same tokens, although the arithmetic differs (4-bit there, 32-bit here)."
    llama_cpp = pytest.importorskip("llama_cpp")
    from cantolyric.constraint.llama_cpp import llama_table, write_tokens_with
    from cantolyric.model_files import model_path
    from cantolyric.models import load_model

    llm = llama_cpp.Llama(str(model_path("qwen2.5-coder-0.5b")), n_ctx=512, verbose=False)
    model, tokenizer = load_model("qwen2.5-coder-0.5b")
    table, other = llama_table(llm), TokenTable.from_tokenizer(tokenizer, model.config.vocab_size)
    shared = table.tokens.keys() & other.tokens.keys()
    assert len(shared) > 151_000 and all(table.tokens[i] == other.tokens[i] for i in shared)
    same = 0
    requests = [("夜雨", "0243324/3324043"), ("海", "33/24"), ("茶餐廳", "3324/0243"), ("巴士", "24330")]
    for topic, tones in requests:
        message = [{"role": "user", "content": f"寫幾句關於{topic}嘅粵語歌詞"}]
        prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
        template = ToneTemplate.parse(tones)
        text = list(write_tokens_with(llm, ToneConstraint(template, table), prompt, temperature=0))
        inputs = dict(input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long))
        kwargs = ToneConstraint(template, other).generate_kwargs(inputs)
        out = model.generate(**inputs, **kwargs, do_sample=False)[0, len(prompt) :].tolist()
        assert template.matches(tokenizer.decode(text))
        same += text == [i for i in out if i not in other.end]
    assert same >= 3, "llama.cpp rounds activations to 8 bits, so a near tie can fall the other way, but rarely"
