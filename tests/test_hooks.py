"""Lesson 23: the hook is where the loss sees it, comes off always, and says so where it would do nothing."""
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments  # noqa: E402
from transformers.modeling_outputs import CausalLMOutputWithPast  # noqa: E402

from cantolyric._exercises import hooks as exercises  # noqa: E402
from cantolyric.hooks import LogitsHookCallback, logits_hook, output_head  # noqa: E402
from cantolyric.tones import CantolyricError  # noqa: E402

IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
BUMP = torch.zeros(40).index_fill(0, torch.tensor([3]), 4.)
bump = lambda logits: logits + BUMP


def make(cls=Qwen3ForCausalLM, tied=True):
    torch.manual_seed(0)
    return cls(Qwen3Config(vocab_size=40, hidden_size=16, num_hidden_layers=2, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, tie_word_embeddings=tied, initializer_range=.2, use_cache=False)).eval()


def hooks_on(model): return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@torch.no_grad()
def loss(model): return float(model(input_ids=IDS, labels=IDS).loss)


@pytest.mark.parametrize("tied", [True, False])
def test_loss_is_that_of_the_changed_logits(tied):
    model = make(tied=tied)
    with torch.no_grad(): logits = model(input_ids=IDS).logits
    want = nn.functional.cross_entropy(bump(logits)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    free = loss(model)
    with logits_hook(model, bump): assert loss(model) == pytest.approx(float(want), abs=1e-5)
    assert loss(model) == free != pytest.approx(float(want), abs=1e-3)
    assert hooks_on(model) == 0


def test_generation_sees_one_position_at_a_time():
    model, shapes = make(), []
    def only_seven(logits):
        shapes.append(tuple(logits.shape))
        return torch.full_like(logits, -1e9).index_fill(-1, torch.tensor([7]), 0.)
    with logits_hook(model, only_seven): out = model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=39)
    assert shapes == [(2, 1, 40)] * 3 and (out[:, 5:] == 7).all()


def test_adapter_and_checkpointing():
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(make(), LoraConfig(r=2, target_modules="all-linear"))
    free, calls = loss(model), []
    with logits_hook(model, bump): assert loss(model) != free
    model.gradient_checkpointing_enable()
    with logits_hook(model, lambda x: calls.append(1) or x): model.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert len(calls) == 1
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_head_with_an_adapter_of_its_own():
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(make(tied=False), LoraConfig(r=2, target_modules=["lm_head"]))
    free = loss(model)
    with logits_hook(model, bump): assert loss(model) != free
    assert loss(model) == free


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_off_after_an_error(error):
    model = make()
    def burst(logits): raise error
    with pytest.raises(error):
        with logits_hook(model, burst): loss(model)
    assert hooks_on(model) == 0


def test_stack():
    model, order = make(), []
    note = lambda name: lambda logits: order.append(name) or logits
    with logits_hook(model, note("a")):
        with logits_hook(model, note("b")): loss(model)
        loss(model)
    loss(model)
    assert order == ["a", "b", "a"]


def test_refuses_what_would_do_nothing():
    model = make()
    with pytest.raises(CantolyricError, match="no output head"): output_head(model.model)
    with pytest.raises(CantolyricError, match="no output head"): output_head(nn.Linear(2, 2))
    with pytest.raises(CantolyricError, match="returned None"):
        with logits_hook(model, lambda x: None): loss(model)
    with pytest.raises(CantolyricError, match=r"shape \(2, 4, 40\)"):
        with logits_hook(model, lambda x: x[:, 1:]): loss(model)
    assert hooks_on(model) == 0


class Fused(Qwen3ForCausalLM):
    def forward(self, input_ids, labels=None):
        logits = nn.functional.linear(self.model(input_ids=input_ids).last_hidden_state, self.lm_head.weight)
        return CausalLMOutputWithPast(loss=nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))


def test_fused_loss_is_noticed():
    model = make(Fused)
    with pytest.raises(CantolyricError, match="fused loss"):
        with logits_hook(model, bump): loss(model)
    assert hooks_on(model) == 0


def test_compiled():
    torch._dynamo.reset()
    model = make()
    want = loss(model)
    compiled = torch.compile(model, backend="eager")
    with logits_hook(compiled, bump): assert loss(compiled) != pytest.approx(want, abs=1e-3)
    assert loss(compiled) == pytest.approx(want, abs=1e-5)
    torch._dynamo.reset()
    compiled = torch.compile(make(), backend="eager")
    loss(compiled)
    with pytest.raises(CantolyricError, match="compiled and called before"):
        with logits_hook(compiled, bump): loss(compiled)
    torch._dynamo.reset()


def train(model, callback, folder):
    args = TrainingArguments(str(folder), max_steps=2, per_device_train_batch_size=2, report_to="none", disable_tqdm=True, save_strategy="no",
                             logging_strategy="no", use_cpu=True)
    Trainer(model, args, train_dataset=[dict(input_ids=[1, 2, 3], labels=[1, 2, 3])] * 4, callbacks=[callback]).train()


def test_callback(tmp_path):
    model, calls = make(), []
    callback = LogitsHookCallback(lambda x: calls.append(tuple(x.shape)) or x)
    train(model, callback, tmp_path)
    assert calls == [(2, 3, 40)] * 2 and hooks_on(model) == 0
    def burst(logits): raise RuntimeError("disk full")
    with pytest.raises(RuntimeError):
        with LogitsHookCallback(burst) as callback: train(model, callback, tmp_path)
    assert hooks_on(model) == 0


def test_checkers_know_wrong():
    for check in (exercises.check_soft_bonus, exercises.check_count_calls, exercises.check_gradient_share): assert check(lambda *a: ...).startswith("Not yet")

    def in_place(ids, bonus):
        def fn(logits):
            logits[..., ids] += bonus
            return logits
        return fn
    assert "in place" in exercises.check_soft_bonus(in_place)

    def leaves_hooks(model, run):
        calls = {}
        for name, m in model.named_modules(): m.register_forward_hook(lambda m, a, o, name=name: calls.__setitem__(name, calls.get(name, 0) + 1) and None)
        run()
        return calls
    assert "hooks are left" in exercises.check_count_calls(leaves_hooks)
    assert "share is" in exercises.check_gradient_share(lambda model, batch, ids: len(ids) / 20)
