"""Checkers for lesson 30. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, run


def check_largest_rank(fn: Callable) -> str:
    "`fn(shapes, budget)` -> the largest rank whose adapter has at most `budget` parameters."
    block = [(256, 256), (128, 256), (128, 256), (256, 256), (768, 256), (768, 256), (256, 768)]
    for shapes, budget, want in (
        (block * 6, 1_000_000, 34),
        ([(768, 768)] * 24, 294_912, 8),
        ([(768, 768)] * 24, 294_911, 7),
        ([(4096, 1024)], 5_119, 0),
        ([(3, 5), (5, 2)], 150, 10),
    ):
        got, error = run(fn, list(shapes), budget)
        if error:
            return error
        if isinstance(got, bool) or not isinstance(got, int):
            return f"Not yet: expected a whole number, got {got!r}"
        if got != want:
            return (
                f"Not yet: for {len(shapes)} matrices, the first of shape {shapes[0]}, and {budget:,} parameters "
                f"expected {want}, got {got}"
            )
    return RIGHT


def _largest(fn, *args):
    "Call `fn`; return its result, an error message or None, and the size of the largest tensor that it created."
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            mine = [t for t in (out if isinstance(out, (tuple, list)) else [out]) if hasattr(t, "untyped_storage")]
            old = {a.untyped_storage().data_ptr() for a in args if hasattr(a, "untyped_storage")}
            sizes.extend(t.numel() for t in mine if t.untyped_storage().data_ptr() not in old)
            return out

    with Watch():
        got, error = run(fn, *args)
    return got, error, max(sizes)


def check_narrow(fn: Callable) -> str:
    "`fn(x, W, A, B, scaling)` -> the output of a linear layer with LoRA, without a matrix of the size of W."
    import torch

    for seed, (n, d_in, d_out, r, scaling) in enumerate(
        ((3, 40, 50, 2, 2.0), (5, 64, 30, 4, 0.5), (1, 30, 30, 1, 1.0))
    ):
        g = torch.Generator().manual_seed(seed)
        x, W, A, B = (torch.randn(*s, generator=g) for s in ((n, d_in), (d_out, d_in), (r, d_in), (d_out, r)))
        want = x @ W.T + scaling * ((x @ A.T) @ B.T)
        got, error, size = _largest(fn, x.clone(), W.clone(), A.clone(), B.clone(), scaling)
        if error:
            return error
        if not isinstance(got, torch.Tensor) or got.shape != want.shape:
            return (
                f"Not yet: expected a tensor of shape {tuple(want.shape)}, got "
                f"{tuple(got.shape) if isinstance(got, torch.Tensor) else repr(got)}"
            )
        if not torch.allclose(got, want, atol=1e-3):
            return (
                f"Not yet: the result is off by up to {float((got - want).abs().max()):.2g}: add the layer's output "
                f"once and the low-rank update {scaling:g} times"
            )
        if size >= d_in * d_out:
            return (
                f"Not yet: the result is right, but it creates a tensor of {size:,} numbers, as many as W has: "
                "multiply by A first, then by B"
            )
    return RIGHT


def check_fewer(fn: Callable) -> str:
    "`fn(A, B, rank)` -> matrices (A, B) of lower rank whose product is as close as possible to the old one."
    import torch

    for seed, (d_in, d_out, r, rank) in enumerate(((30, 20, 8, 3), (16, 40, 6, 1), (12, 12, 4, 4))):
        g = torch.Generator().manual_seed(seed)
        A, B = torch.randn(r, d_in, generator=g), torch.randn(d_out, r, generator=g) * torch.linspace(2, 0.1, r)
        got, error = run(fn, A.clone(), B.clone(), rank)
        if error:
            return error
        if not isinstance(got, tuple) or len(got) != 2 or not all(isinstance(t, torch.Tensor) for t in got):
            return f"Not yet: expected two tensors, A and B, got {type(got).__name__}"
        if (shapes := [tuple(t.shape) for t in got]) != [(rank, d_in), (d_out, rank)]:
            return f"Not yet: expected the shapes {[(rank, d_in), (d_out, rank)]}, got {shapes}"
        least = float(torch.linalg.svdvals(B @ A)[rank:].norm())
        far = float((got[1] @ got[0] - B @ A).norm())
        if not far <= least * 1.001 + 1e-3:
            return (
                f"Not yet: at rank {rank}, the product can come within {least:.3g} of the one at rank {r}, but yours "
                f"is off by {far:.3g}: use the top singular vectors of B A"
            )
    return RIGHT
