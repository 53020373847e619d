"""Lesson 24: three ways to one mask and one loss."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from cantolyric._exercises import loss as exercises  # noqa: E402
from cantolyric.loss import (ToneMask, apply_tone_mask, masked_cross_entropy, sliced_cross_entropy, states_and_table, tone_mask_loops,  # noqa: E402
                             tone_mask_slice)
from cantolyric.tones import CantolyricError  # noqa: E402


def batch(seed, B=3, T=11, V=70, S=6, H=16):
    "Hidden states, head, states, labels and table that agree; the first four positions are prompt."
    g = torch.Generator().manual_seed(seed)
    table = torch.rand(S, V, generator=g) < .2
    table[0] = True
    table[torch.arange(1, S), torch.randint(0, V, (S - 1,), generator=g)] = True
    states = torch.randint(1, S, (B, T), generator=g)
    states[:, :3] = 0
    labels = torch.multinomial(table[states].float().flatten(0, 1), 1, generator=g).view(B, T).roll(1, 1)
    labels[:, :4] = -100
    labels[0, 8:] = -100
    states[0, 7:] = 0
    return torch.randn(B, T, H, generator=g, requires_grad=True), torch.randn(V, H, generator=g, requires_grad=True), states, labels, table


@pytest.mark.parametrize("seed", range(30))
def test_loops_equal_slice(seed):
    g = torch.Generator().manual_seed(seed)
    B, T, S, V = torch.randint(1, 12, (4,), generator=g).tolist()
    states, table = torch.randint(0, S, (B, T), generator=g), torch.rand(S, V, generator=g) < .5
    a, b = tone_mask_loops(states, table), tone_mask_slice(states, table)
    assert a.dtype == b.dtype == torch.bool and a.shape == (B, T, V) and torch.equal(a, b)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("biased", [False, True])
def test_sliced_equals_masked(seed, biased):
    hidden, head, states, labels, table = batch(seed)
    bias = torch.randn(len(head), requires_grad=True) if biased else None
    wrt = [hidden, head] + [bias] * biased
    full = masked_cross_entropy(F.linear(hidden, head, bias), labels, states, table)
    cut = sliced_cross_entropy(hidden, head, states, labels, table, bias=bias)
    assert abs(full.item() - cut.item()) < 1e-5
    for a, b in zip(torch.autograd.grad(full, wrt), torch.autograd.grad(cut, wrt)): assert float((a - b).abs().max()) < 1e-5


def test_equals_a_loop_over_positions():
    hidden, head, states, labels, table = batch(1)
    logits, total, n = (hidden @ head.T).detach(), 0., 0
    for b in range(logits.shape[0]):
        for t in range(logits.shape[1] - 1):
            if labels[b, t + 1] == -100: continue
            p = logits[b, t].exp() * table[states[b, t]]
            total, n = total - float((p[labels[b, t + 1]] / p.sum()).log()), n + 1
    assert float(masked_cross_entropy(logits, labels, states, table)) == pytest.approx(total / n, abs=1e-4)


def test_accumulation_and_empty_batches():
    hidden, head, states, labels, table = batch(2)
    whole, n = sliced_cross_entropy(hidden, head, states, labels, table), int((labels[:, 1:] != -100).sum())
    for loss in (lambda h, s, l: sliced_cross_entropy(h, head, s, l, table, count=n), lambda h, s, l: masked_cross_entropy(h @ head.T, l, s, table, count=n)):
        parts = [loss(hidden[b:b + 1], states[b:b + 1], labels[b:b + 1]) for b in range(3)]
        assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-5)
    none = torch.full_like(labels, -100)
    assert sliced_cross_entropy(hidden, head, states, none, table).item() == masked_cross_entropy(hidden @ head.T, none, states, table).item() == 0


def test_forbidden_tokens_get_no_gradient():
    hidden, head, states, labels, table = batch(3)
    logits = (hidden @ head.T).detach().requires_grad_()
    masked_cross_entropy(logits, labels, states, table).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[~table[states]].abs().max() == 0 < logits.grad.abs().max()


def test_bf16():
    hidden, head, states, labels, table = batch(4)
    a = masked_cross_entropy((hidden @ head.T).bfloat16(), labels, states, table)
    b = sliced_cross_entropy(hidden.bfloat16(), head.bfloat16(), states, labels, table)
    assert a.dtype == b.dtype == torch.float32 and abs(a.item() - b.item()) < .05 * a.item()


def test_a_forbidden_label_is_named():
    hidden, head, states, labels, table = batch(5)
    table[states[1, 6], labels[1, 7]] = False
    for run in (lambda: masked_cross_entropy(hidden @ head.T, labels, states, table), lambda: sliced_cross_entropy(hidden, head, states, labels, table)):
        with pytest.raises(CantolyricError, match=f"token {labels[1, 7]}"): run()
    with pytest.raises(CantolyricError, match="must agree"): apply_tone_mask(torch.zeros(1, 2, 3), torch.ones(1, 2, 4, dtype=torch.bool))
    with pytest.raises(CantolyricError, match="has no states"): ToneMask()(torch.zeros(1, 2, 3))


@pytest.mark.parametrize("V", [5, 32, 33, 100])
def test_states_and_table(V):
    rng = np.random.default_rng(V)
    pack = lambda rows: np.packbits(np.pad(rows, ((0, 0), (0, -V % 32))), axis=1, bitorder="little").view(np.int32)
    every = rng.random((4, V)) < .5
    chosen, starts = [rng.integers(0, 4, n) for n in (3, 1, 5)], [2, 6, 1]
    states, table = states_and_table([pack(every[c]) for c in chosen], starts, 8, V)
    assert states.shape == (3, 8) and table.shape[1] == V and len(table) <= 5 and table[0].all()
    masks = tone_mask_slice(states, table).numpy()
    for b, (c, start) in enumerate(zip(chosen, starts)):
        want = np.ones((8, V), bool)
        want[start - 1:start - 1 + len(c)] = every[c]
        assert (masks[b] == want).all()


def test_checkers_know_wrong():
    for check in (exercises.check_after, exercises.check_allowed_share, exercises.check_mask_from_bits): assert check(lambda *a: ...).startswith("Not yet")
    assert "wanted is" in exercises.check_after(lambda shares, factors: 1 / max([1, *factors.values()]))

    def unshifted(logits, labels, states, table):
        on = labels != -100
        return float((logits.softmax(-1) * table[states]).sum(-1)[on].mean())
    assert "about the label" in exercises.check_allowed_share(unshifted)

    def big_endian(states, packed, n):
        return (packed[states][..., None] >> torch.arange(31, -1, -1, dtype=torch.int32) & 1).flatten(-2)[..., :n].bool()
    assert "bits are wrong" in exercises.check_mask_from_bits(big_endian)
