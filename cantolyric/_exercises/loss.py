"""Checkers for lesson 24. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric._exercises import RIGHT, number, run


def _batch(seed):
    "Logits, labels, states and a table that agree with each other."
    import torch
    g = torch.Generator().manual_seed(seed)
    B, T, V, S = 3, 7, 50, 5
    table = torch.rand(S, V, generator=g) < .3
    table[0], table[1:, 7] = True, True
    states, logits = torch.randint(0, S, (B, T), generator=g), torch.randn(B, T, V, generator=g) * 2
    labels = table[states].float().argmax(-1).roll(1, 1)
    labels[:, :3] = -100
    labels[0, 5:] = -100
    return logits, labels, states, table


def check_after(fn) -> str:
    "`fn(shares, factors)` -> seconds of a step that took one."
    for shares, factors, want in (({"mask": .8}, {"mask": 10}, .28), ({"mask": .5, "head": .3}, {"mask": 5, "head": 3}, .4),
                                  ({"mask": .2}, {}, 1.), ({}, {}, 1.), ({"mask": 1.}, {"mask": 4}, .25)):
        got, error = run(fn, dict(shares), dict(factors))
        if error: return error
        if why := number(got, want, f"shares {shares}, factors {factors}", 1e-5): return why
    return RIGHT


def check_allowed_share(fn) -> str:
    "`fn(logits, labels, states, table)` -> mean probability on allowed tokens at labelled positions."
    for seed in range(3):
        logits, labels, states, table = _batch(seed)
        p, total, n = logits.softmax(-1), 0., 0
        for b in range(logits.shape[0]):
            for t in range(logits.shape[1] - 1):
                if labels[b, t + 1] == -100: continue
                total, n = total + float(p[b, t][table[states[b, t]]].sum()), n + 1
        got, error = run(fn, logits.clone(), labels.clone(), states.clone(), table.clone())
        if error: return error
        if why := number(got, total / n, "the mean over labelled positions (logits at t are about the label at t + 1)", 1e-5): return why
    return RIGHT


def check_mask_from_bits(fn) -> str:
    "`fn(states, packed, vocab_size)` -> bool mask."
    import numpy as np
    import torch
    for seed, V in ((0, 50), (1, 64), (2, 33), (3, 1)):
        g = np.random.default_rng(seed)
        table = g.random((4, V)) < .5
        bits = np.zeros((4, -(-V // 32) * 32), bool)
        bits[:, :V] = table
        packed = torch.from_numpy(np.packbits(bits, axis=1, bitorder="little").view(np.int32))
        states = torch.from_numpy(g.integers(0, 4, (2, 3)))
        got, error = run(fn, states, packed, V)
        if error: return error
        if not isinstance(got, torch.Tensor) or got.dtype != torch.bool: return f"Not yet: wanted is a bool tensor, it returned {type(got).__name__} {getattr(got, 'dtype', '')}".rstrip()
        if got.shape != (2, 3, V): return f"Not yet: wanted is the shape (2, 3, {V}), it returned {tuple(got.shape)}"
        if not torch.equal(got, torch.from_numpy(table)[states]): return f"Not yet: with {V} tokens some bits are wrong; bit 31 is the sign bit, is it handled?"
    return RIGHT
