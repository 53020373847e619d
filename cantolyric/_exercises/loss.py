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


def check_price(fn) -> str:
    "`fn(states, table, groups, copy)` -> products that the sliced loss takes with these groups."
    import torch
    for seed, copy in ((0, 10), (1, 10), (2, 0), (3, 100)):
        g = torch.Generator().manual_seed(seed)
        table, states, groups = torch.rand(9, 40, generator=g) < .2, torch.randint(0, 7, (25,), generator=g), torch.randint(0, 3, (9,), generator=g)
        want = 0
        for k in range(3):
            positions = [s for s in states.tolist() if groups[s] == k]
            want += sum(any(table[s, v] for s in positions) for v in range(40)) * (copy * bool(positions) + len(positions))
        got, error = run(fn, states.clone(), table.clone(), groups.clone(), copy)
        if error: return error
        if why := number(got, want, f"{len(states)} positions in {len(groups.unique())} groups, copy {copy}", 1e-6): return why
    return RIGHT
