"""Lesson 23: the hook is where the loss sees it, comes off always, and works or says so where it would do nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments
from transformers.modeling_outputs import CausalLMOutputWithPast

from cantolyric._exercises import hooks as exercises
from cantolyric.errors import CantolyricError
from cantolyric.hooks import LogitsHookCallback, logits_hook, output_head

IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
BUMP = torch.zeros(40).index_fill(0, torch.tensor([3]), 4.0)
bump = lambda logits: logits + BUMP


def make(cls=Qwen3ForCausalLM, tied=True, layers=2):
    torch.manual_seed(0)
    return cls(
        Qwen3Config(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=layers,
            intermediate_size=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            tie_word_embeddings=tied,
            initializer_range=0.2,
            use_cache=False,
        )
    ).eval()


def hooks_on(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@torch.no_grad()
def loss(model, **inputs):
    return model(input_ids=IDS, labels=IDS, **inputs).loss.item()


def hooked_loss(model, **inputs):
    with logits_hook(model, bump):
        return loss(model, **inputs)


@pytest.mark.parametrize("tied", [True, False])
def test_loss_is_that_of_the_changed_logits(tied):
    model = make(tied=tied)
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
    want = nn.functional.cross_entropy(bump(logits)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    free = loss(model)
    with logits_hook(model, bump):
        assert loss(model) == pytest.approx(float(want), abs=1e-5)
    assert loss(model) == free != pytest.approx(float(want), abs=1e-3)
    assert hooks_on(model) == 0


def test_generation_sees_one_position_at_a_time():
    model, shapes = make(), []

    def only_seven(logits):
        shapes.append(tuple(logits.shape))
        return torch.full_like(logits, -1e9).index_fill(-1, torch.tensor([7]), 0.0)

    with logits_hook(model, only_seven):
        out = model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=39)
    assert shapes == [(2, 1, 40)] * 3 and (out[:, 5:] == 7).all()


def test_adapter_and_checkpointing():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make(), LoraConfig(r=2, target_modules="all-linear"))
    free, calls = loss(model), []
    with logits_hook(model, bump):
        assert loss(model) != free
    model.gradient_checkpointing_enable()
    with logits_hook(model, lambda x: calls.append(1) or x):
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert len(calls) == 1
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "config", [dict(target_modules=["lm_head"]), dict(target_modules=["q_proj"], modules_to_save=["lm_head"])]
)
@pytest.mark.parametrize("fused", [False, True])
def test_head_with_an_adapter_of_its_own(config, fused):
    from peft import LoraConfig, get_peft_model

    want, free = hooked_loss(make(tied=False)), loss(make(tied=False))
    model = get_peft_model(make(Fused if fused else Qwen3ForCausalLM, tied=False), LoraConfig(r=2, **config))
    with logits_hook(model, bump):
        assert loss(model) == pytest.approx(want, abs=1e-5)
    assert loss(model) == pytest.approx(free, abs=1e-5) != pytest.approx(want, abs=1e-3)
    assert hooks_on(model) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_off_after_an_error(error):
    model = make()

    def burst(logits):
        raise error

    with pytest.raises(error):
        with logits_hook(model, burst):
            loss(model)
    assert hooks_on(model) == 0


def test_stack():
    model, order = make(), []
    note = lambda name: lambda logits: order.append(name) or logits
    with logits_hook(model, note("a")):
        with logits_hook(model, note("b")):
            loss(model)
        loss(model)
    loss(model)
    assert order == ["a", "b", "a"]


def test_refuses_what_would_do_nothing():
    model = make()
    with pytest.raises(CantolyricError, match="no output head"):
        output_head(model.model)
    with pytest.raises(CantolyricError, match="no output head"):
        output_head(nn.Linear(2, 2))
    with pytest.raises(CantolyricError, match="returned None"):
        with logits_hook(model, lambda x: None):
            loss(model)
    with pytest.raises(CantolyricError, match=r"shape \(2, 4, 40\)"):
        with logits_hook(model, lambda x: x[:, 1:]):
            loss(model)
    assert hooks_on(model) == 0


class Fused(Qwen3ForCausalLM):
    "As Liger's: with labels, the loss is made from the head's weights."

    def forward(
        self, input_ids=None, attention_mask=None, labels=None, num_items_in_batch=None, shift_labels=None, **kwargs
    ):
        if labels is None and shift_labels is None:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        self.fused_forwards = getattr(self, "fused_forwards", 0) + 1
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = nn.functional.linear(hidden, self.lm_head.weight)
        return CausalLMOutputWithPast(
            loss=self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=40,
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
        )


class NeverCalled(Fused):
    "Its head is not called without labels either."

    def forward(self, input_ids, labels=None):
        if labels is not None:
            return super().forward(input_ids, labels=labels)
        return CausalLMOutputWithPast(
            logits=nn.functional.linear(self.model(input_ids=input_ids).last_hidden_state, self.lm_head.weight)
        )


class LabelsWanted(Fused):
    "Cannot do without labels, as TRL's patched forward."

    def forward(self, input_ids, labels=None):
        return super().forward(input_ids, labels=labels[:, :])


def test_a_fused_loss_is_gone_around():
    model, free, want = make(Fused), loss(make()), hooked_loss(make())
    assert loss(model) == pytest.approx(free, abs=1e-6) and model.fused_forwards == 1
    with logits_hook(model, bump):
        assert [loss(model) for _ in range(3)] == pytest.approx([want] * 3, abs=1e-5)
        assert model.fused_forwards == 2  # the first call finds out, later ones do nothing twice
        assert loss(model, num_items_in_batch=torch.tensor(4)) == pytest.approx(2 * want, abs=1e-5)  # 8 labels
        with torch.no_grad():
            shifted = model(input_ids=IDS, shift_labels=nn.functional.pad(IDS[:, 1:], (0, 1), value=-100)).loss.item()
        assert shifted == pytest.approx(want, abs=1e-5)
        out = model(input_ids=IDS, labels=IDS)
        assert list(out)[:2] == ["loss", "logits"] and out[0] is out.loss
        out.loss.backward()
        assert isinstance(model(input_ids=IDS, labels=IDS, return_dict=False), tuple)
        assert model(input_ids=IDS, labels=IDS, return_dict=False)[0].item() == pytest.approx(want, abs=1e-5)
    plain = make()
    with logits_hook(plain, bump):
        plain(input_ids=IDS, labels=IDS).loss.backward()
    for a, b in zip(plain.parameters(), model.parameters()):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)
    assert hooks_on(model) == 0 and loss(model) == pytest.approx(free, abs=1e-6)


@pytest.mark.parametrize("cls,compiled", [(Qwen3ForCausalLM, False), (Fused, False), (Fused, True)])
def test_two_hooks_both_act_in_order(cls, compiled):
    torch.compiler.reset()
    with logits_hook(plain := make(layers=1), lambda logits: 2 * (logits + BUMP)):
        want = loss(plain)
    model = make(cls, layers=1)
    if compiled:
        model = torch.compile(model, backend="eager")
    free = loss(model)
    with logits_hook(model, bump), logits_hook(model, lambda logits: 2 * logits):
        assert [loss(model) for _ in range(2)] == pytest.approx([want] * 2, abs=1e-5)
    assert loss(model) == pytest.approx(free, abs=1e-6) != pytest.approx(want, abs=1e-3)
    torch.compiler.reset()


def test_a_fused_model_generates():
    model = make(Fused)
    with logits_hook(model, lambda x: torch.full_like(x, -1e9).index_fill(-1, torch.tensor([7]), 0.0)):
        loss(model)
        out = model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=39)
    assert (out[:, 5:] == 7).all()


@pytest.mark.parametrize("cls", [NeverCalled, LabelsWanted])
def test_a_head_that_is_never_called_is_refused(cls):
    model = make(cls)
    with pytest.raises(CantolyricError, match="never called"), logits_hook(model, bump):
        loss(model)
    if cls is NeverCalled:
        with pytest.raises(CantolyricError, match="never called"), logits_hook(model, bump):
            model(input_ids=IDS)
    with pytest.raises(CantolyricError, match="never called"), logits_hook(model, bump):
        model(IDS, IDS)  # labels by position stay
    assert hooks_on(model) == 0


def test_what_going_around_would_lose_is_refused():
    model = make(Fused)
    model.config.output_router_logits = True
    with pytest.raises(CantolyricError, match="router"), logits_hook(model, bump):
        loss(model)
    model.config.output_router_logits = False
    with pytest.raises(CantolyricError, match=r"labels \(2, 5\) from logits \(2, 3, 40\)"), logits_hook(model, bump):
        loss(model, logits_to_keep=3)
    assert hooks_on(model) == 0


def test_an_error_of_the_function_comes_out_of_a_fused_model():
    def burst(logits):
        raise KeyError("mine")

    model = make(Fused)
    with pytest.raises(KeyError, match="mine"), logits_hook(model, burst):
        loss(model)
    assert hooks_on(model) == 0


def whole(model, backend):
    return torch.compile(model, backend=backend)


def in_place(model, backend):
    model.compile(backend=backend)
    return model


def blocks(model, backend):
    for i, block in enumerate(model.model.layers):
        model.model.layers[i] = torch.compile(block, backend=backend)
    return model


def only_head(model, backend):
    model.lm_head = torch.compile(model.lm_head, backend=backend)
    return model


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="inductor on a CPU needs g++")


@pytest.mark.parametrize(
    "how,backend",
    [
        (whole, "eager"),
        (in_place, "eager"),
        (blocks, "aot_eager"),
        (only_head, "eager"),
        pytest.param(only_head, "inductor", marks=needs_compiler),
    ],
)
def test_compiled_and_called_before(how, backend):
    torch.compiler.reset()
    free, want = loss(make(layers=1)), hooked_loss(make(layers=1))
    model = how(make(layers=1), backend)
    with torch.no_grad():
        logits = model(input_ids=IDS).logits  # without labels: nothing else could help there
    assert loss(model) == pytest.approx(free, abs=1e-4)
    if how is whole:  # the trap is there: a bare hook is not called
        with output_head(model).register_forward_hook(lambda m, a, out: bump(out)):
            assert loss(model) == pytest.approx(free, abs=1e-4)
    for _ in range(2):
        with logits_hook(model, bump), torch.no_grad():
            assert torch.allclose(model(input_ids=IDS).logits, bump(logits), atol=1e-4)
            assert [loss(model) for _ in range(2)] == pytest.approx([want] * 2, abs=1e-4)
        assert loss(model) == pytest.approx(free, abs=1e-4)
    torch.compiler.reset()


def test_compiled_in_one_piece_again_afterwards():
    from torch._dynamo.utils import counters

    def graphs():
        before = counters["stats"]["unique_graphs"]
        loss(model)
        return counters["stats"]["unique_graphs"] - before

    torch.compiler.reset()
    model = torch.compile(make(layers=1), backend="eager")
    assert graphs() == 1
    with logits_hook(model, bump):
        assert graphs() > 1
    assert graphs() == 1
    torch.compiler.reset()


def test_compiled_while_the_hook_is_on():
    torch.compiler.reset()
    model, free, want = make(layers=1), loss(make(layers=1)), hooked_loss(make(layers=1))
    with logits_hook(model, bump):
        compiled = torch.compile(model, backend="eager")
        assert loss(compiled) == pytest.approx(want, abs=1e-5)
    assert loss(compiled) == pytest.approx(free, abs=1e-5)
    with logits_hook(model, bump):
        assert loss(compiled) == pytest.approx(want, abs=1e-5)  # the hook is on the model inside
    torch.compiler.reset()


def test_a_function_that_remembers_needs_no_new_compiling():
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    model, seen = torch.compile(make(layers=1), backend="eager"), []
    with logits_hook(model, lambda x: seen.append(len(seen)) or x + len(seen)):
        loss(model)
        graphs = counters["stats"]["unique_graphs"]
        for _ in range(12):
            loss(model)
        assert counters["stats"]["unique_graphs"] == graphs
    assert seen == list(range(13))
    torch.compiler.reset()


def test_whole_graphs_cannot_hold_the_hook_and_say_so():
    torch.compiler.reset()
    model = torch.compile(make(layers=1), backend="eager", fullgraph=True)
    free = loss(model)
    with pytest.raises(torch._dynamo.exc.Unsupported), logits_hook(model, bump):
        loss(model)
    assert loss(model) == free and hooks_on(model) == 0
    torch.compiler.reset()


SHARD = """
import json, sys
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
sys.path.insert(0, sys.argv[1])
from test_hooks import IDS, Fused, bump, hooks_on, make
from cantolyric.hooks import logits_hook

dist.init_process_group("gloo")
rank, ids, out = dist.get_rank(), IDS[dist.get_rank():dist.get_rank() + 1], {}
for cls in (type(make()), Fused):
    model, kinds = make(cls), []
    def step():
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        return loss.item()
    def fn(logits):
        kinds.append((list(logits.shape), type(model.lm_head.weight).__name__))
        return bump(logits)
    with logits_hook(model, fn): alone = [step(), step()]
    for block in model.model.layers: fully_shard(block)
    fully_shard(model)
    kinds.clear()
    free = step()
    outside = type(model.lm_head.weight).__name__
    with logits_hook(model, fn): hooked = [step(), step()]
    steps = dict(alone=alone, free=free, hooked=hooked, again=step())
    out[cls.__name__] = dict(steps, inside=kinds, outside=outside, left=hooks_on(model.lm_head))
json.dump(out, open(f"{sys.argv[2]}/{rank}.json", "w"))
dist.destroy_process_group()
"""


def test_sharded_over_two_processes(tmp_path):
    (tmp_path / "shard.py").write_text(SHARD)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), *sys.path])),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            str(tmp_path / "shard.py"),
            str(Path(__file__).parent),
            str(tmp_path),
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        for name, r in json.loads((tmp_path / f"{rank}.json").read_text()).items():
            assert r["hooked"] == pytest.approx(r["alone"], abs=1e-5), (rank, name)
            assert r["free"] == pytest.approx(r["again"], abs=1e-5) != pytest.approx(r["hooked"][0], abs=1e-3), (
                rank,
                name,
            )
            assert r["inside"] == [[[1, 5, 40], "Parameter"]] * 2 and r["outside"] == "DTensor" and r["left"] == 0, (
                rank,
                name,
            )


def trainer_for(model, folder, callbacks=None, cls=Trainer, rows=None, **args):
    args = TrainingArguments(
        str(folder),
        **{
            **dict(
                max_steps=2,
                per_device_train_batch_size=2,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                logging_strategy="no",
                use_cpu=True,
            ),
            **args,
        },
    )
    return cls(
        model,
        args,
        train_dataset=rows or [dict(input_ids=[1, 2, 3], labels=[1, 2, 3])] * 8,
        callbacks=callbacks,
        eval_dataset=[dict(input_ids=[1, 2, 3], labels=[1, 2, 3])] * 2,
    )


def counter():
    calls = []
    return calls, lambda x: calls.append(tuple(x.shape)) or bump(x)


def test_callback(tmp_path):
    model, (calls, fn) = make(), counter()
    trainer_for(model, tmp_path, [LogitsHookCallback(fn)]).train()
    assert calls == [(2, 3, 40)] * 2 and hooks_on(model) == 0

    def burst(logits):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        with LogitsHookCallback(burst) as callback:
            trainer_for(model, tmp_path, [callback]).train()
    assert hooks_on(model) == 0


def test_attached_trains_twice_evaluates_and_resumes(tmp_path):
    model, (calls, fn) = make(), counter()
    trainer = trainer_for(
        model,
        tmp_path,
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=4,
        save_total_limit=None,
    )
    assert isinstance(LogitsHookCallback(fn).attach(trainer), LogitsHookCallback)
    trainer.train()
    assert len(calls) == 4 + 1 and hooks_on(model) == 0  # one batch of evaluation
    trainer.evaluate()
    assert len(calls) == 5  # not hooked outside of training
    trainer.train()
    assert len(calls) == 10 and hooks_on(model) == 0
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(calls) == 10 + 2 + 1 and hooks_on(model) == 0


class Failing(Trainer):
    def get_train_dataloader(self):
        raise ZeroDivisionError("loader")


class BadOptimizer(torch.optim.SGD):
    def step(self, closure=None):
        raise ZeroDivisionError("optimizer")


def bad_optimizer(model, folder):
    trainer = trainer_for(model, folder)
    trainer.optimizer = BadOptimizer(model.parameters(), lr=0.1)
    return trainer


class BadRows(list):
    def __getitem__(self, i):
        raise ZeroDivisionError("row")


@pytest.mark.parametrize(
    "make_trainer",
    [bad_optimizer, lambda m, f: trainer_for(m, f, cls=Failing), lambda m, f: trainer_for(m, f, rows=BadRows([1] * 8))],
)
def test_attached_comes_off_after_an_error_elsewhere(tmp_path, make_trainer):
    model, (_, fn) = make(), counter()
    trainer = make_trainer(model, tmp_path)
    LogitsHookCallback(fn).attach(trainer)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert hooks_on(model) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_attached_comes_off_after_an_error_inside(tmp_path, error):
    model, on = make(), []

    def burst(logits):
        on.append(hooks_on(model))
        raise error

    trainer = trainer_for(model, tmp_path)
    LogitsHookCallback(burst).attach(trainer)
    with pytest.raises(error):
        trainer.train()
    assert on == [3] and hooks_on(model) == 0


Patched = type(
    "Qwen3ForCausalLM", (Fused,), {}
)  # by the name of its class a Trainer knows that a model shifts its labels


def trained(cls, folder, hooked=True, **args):
    "Losses and parameters after three steps."
    model, (calls, fn) = make(cls, layers=1), counter()
    trainer = trainer_for(
        model, folder, max_steps=3, learning_rate=0.05, logging_strategy="steps", logging_steps=1, **args
    )
    if hooked:
        LogitsHookCallback(fn).attach(trainer)
    trainer.train()
    if hooked:
        assert len(calls) == 3 * args.get("gradient_accumulation_steps", 1) and not model.lm_head._forward_hooks
    return [x["loss"] for x in trainer.state.log_history if "loss" in x], [
        p.detach().clone() for p in model.parameters()
    ]


@pytest.mark.parametrize(
    "args",
    [
        dict(gradient_accumulation_steps=2),
        dict(gradient_checkpointing=True),
        dict(torch_compile=True, torch_compile_backend="eager"),
    ],
)
def test_a_fused_model_trains_like_a_plain_one(tmp_path, args):
    torch.compiler.reset()
    (losses, params), (fused_losses, fused_params) = (
        trained(Qwen3ForCausalLM, tmp_path, **{**args, "torch_compile": False}),
        trained(Patched, tmp_path, **args),
    )
    assert fused_losses == pytest.approx(losses, abs=1e-4)
    for a, b in zip(params, fused_params):
        assert torch.allclose(a, b, atol=1e-4)
    free, _ = trained(Qwen3ForCausalLM, tmp_path, hooked=False)
    assert losses[0] != pytest.approx(free[0], abs=1e-2)
    torch.compiler.reset()


def test_checkers_know_wrong():
    for check in (
        exercises.check_soft_bonus,
        exercises.check_count_calls,
        exercises.check_gradient_share,
        exercises.check_loss_sees,
    ):
        assert check(lambda *a: ...).startswith("Not yet")

    def in_place(ids, bonus):
        def fn(logits):
            logits[..., ids] += bonus
            return logits

        return fn

    assert "in place" in exercises.check_soft_bonus(in_place)

    def leaves_hooks(model, run):
        calls = {}
        for name, m in model.named_modules():
            m.register_forward_hook(lambda m, a, o, name=name: calls.__setitem__(name, calls.get(name, 0) + 1) and None)
        run()
        return calls

    assert "hooks are left" in exercises.check_count_calls(leaves_hooks)
    assert "a share of" in exercises.check_gradient_share(lambda model, batch, ids: len(ids) / 20)

    noisy = lambda m, a, out: (
        out + 3 if isinstance(out, torch.Tensor) else (out[0] + 3, *out[1:]) if isinstance(out, tuple) else out
    )

    def was_called(model, place, batch):
        calls = []
        with model.get_submodule(place).register_forward_hook(lambda m, a, out: calls.append(1)), torch.no_grad():
            model(**batch)
        return bool(calls)

    def sees(keep=False, grads=False):
        def fn(model, place, batch):
            torch.manual_seed(0)
            free = model(**batch).loss
            handle = model.get_submodule(place).register_forward_hook(
                lambda m, a, out: out * torch.randn(out.shape) if isinstance(out, torch.Tensor) else noisy(m, a, out)
            )
            changed = model(**batch).loss
            if grads:
                free.backward()
            if not keep:
                handle.remove()
            return not torch.equal(free, changed)

        return fn

    assert exercises.check_loss_sees(sees()) == exercises.RIGHT
    assert "expected False, got True" in exercises.check_loss_sees(was_called)
    assert "expected True, got False" in exercises.check_loss_sees(lambda *a: False)
    assert "hooks are left" in exercises.check_loss_sees(sees(keep=True))
    assert "gradients" in exercises.check_loss_sees(sees(grads=True))
