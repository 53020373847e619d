"""Checkers for lesson 24. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, number, run


def _batch(seed):
    "Logits, labels, mask ids and a mask table that agree with each other."
    import torch

    g = torch.Generator().manual_seed(seed)
    B, T, V, S = 3, 7, 50, 5
    mask_table = torch.rand(S, V, generator=g) < 0.3
    mask_table[0], mask_table[1:, 7] = True, True
    mask_ids, logits = torch.randint(0, S, (B, T), generator=g), torch.randn(B, T, V, generator=g) * 2
    labels = mask_table[mask_ids].float().argmax(-1).roll(1, 1)
    labels[:, :3] = -100
    labels[0, 5:] = -100
    return logits, labels, mask_ids, mask_table


def check_after(fn: Callable) -> str:
    "`fn(shares, factors)` -> the new duration of a step that took one second."
    for shares, factors, want in (
        ({"mask": 0.8}, {"mask": 10}, 0.28),
        ({"mask": 0.5, "head": 0.3}, {"mask": 5, "head": 3}, 0.4),
        ({"mask": 0.2}, {}, 1.0),
        ({}, {}, 1.0),
        ({"mask": 1.0}, {"mask": 4}, 0.25),
    ):
        got, error = run(fn, dict(shares), dict(factors))
        if error:
            return error
        if why := number(got, want, f"shares {shares}, factors {factors}", 1e-5):
            return why
    return RIGHT


def check_allowed_share(fn: Callable) -> str:
    "`fn(logits, labels, mask_ids, mask_table)` -> the mean probability of the allowed tokens at labelled positions."
    for seed in range(3):
        logits, labels, mask_ids, mask_table = _batch(seed)
        p, total, n = logits.softmax(-1), 0.0, 0
        for b in range(logits.shape[0]):
            for t in range(logits.shape[1] - 1):
                if labels[b, t + 1] == -100:
                    continue
                total, n = total + float(p[b, t][mask_table[mask_ids[b, t]]].sum()), n + 1
        got, error = run(fn, logits.clone(), labels.clone(), mask_ids.clone(), mask_table.clone())
        if error:
            return error
        if why := number(
            got, total / n, "the mean over labelled positions (logits at t are about the label at t + 1)", 1e-5
        ):
            return why
    return RIGHT


def check_price(fn: Callable) -> str:
    "`fn(mask_ids, mask_table, groups, copy)` -> the number of products that the sliced loss takes with these groups."
    import torch

    for seed, copy in ((0, 10), (1, 10), (2, 0), (3, 100)):
        g = torch.Generator().manual_seed(seed)
        mask_table = torch.rand(9, 40, generator=g) < 0.2
        mask_ids = torch.randint(0, 7, (25,), generator=g)
        groups = torch.randint(0, 3, (9,), generator=g)
        want = 0
        for k in range(3):
            positions = [s for s in mask_ids.tolist() if groups[s] == k]
            want += sum(any(mask_table[s, v] for s in positions) for v in range(40)) * (
                copy * bool(positions) + len(positions)
            )
        got, error = run(fn, mask_ids.clone(), mask_table.clone(), groups.clone(), copy)
        if error:
            return error
        if why := number(got, want, f"{len(mask_ids)} positions in {len(groups.unique())} groups, copy {copy}", 1e-6):
            return why
    return RIGHT
