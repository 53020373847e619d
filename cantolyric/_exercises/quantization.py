"""Checkers for lesson 31. Each returns "Right." or explains what is wrong; none raises."""

from collections.abc import Callable

from cantolyric._exercises import RIGHT, number, run


def check_bits_a_weight(fn: Callable) -> str:
    "`fn(bits, block_size, double)` -> bits per weight, scales included."
    for bits, size, double in ((4, 64, False), (4, 64, True), (4, 4096, True), (8, 128, False), (2, 32, True)):
        want = bits + ((8 + 32 / 256) if double else 32) / size
        got, error = run(fn, bits, size, double)
        if error:
            return error
        if why := number(
            got, want, f"{bits} bits, blocks of {size}, {'double quantization' if double else 'scales in fp32'}", 1e-6
        ):
            return why
    return RIGHT


def _bits3(codes):
    "Codes as one string of bits, split into bytes."
    text = "".join(f"{c:03b}" for c in codes)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]


def check_pack3(fn: Callable) -> str:
    "`fn(codes)` -> 3-bit codes, packed eight to three bytes."
    import torch

    g = torch.Generator().manual_seed(0)
    for n in (8, 16, 1, 3, 9, 100):
        codes = torch.randint(0, 8, (n,), generator=g).to(torch.uint8)
        want = _bits3(codes.tolist())
        got, error = run(fn, codes.clone())
        if error:
            return error
        if not isinstance(got, torch.Tensor) or got.dtype != torch.uint8:
            return f"Not yet: expected a tensor of uint8, got {got!r}"
        if got.tolist() != want:
            return (
                f"Not yet: for {n} codes that begin with {codes[:8].tolist()} expected {len(want)} bytes that begin "
                f"with {want[:6]}, got {got.numel()} bytes that begin with {got.tolist()[:6]}"
            )
    return RIGHT


def _error(weights, code, scale):
    "Return the squared error of weights that are clipped at `scale` and rounded to the nearest value of a code."
    total = 0.0
    for x in weights:
        y = min(max(x / scale, -1.0), 1.0)
        total += min(abs(v - y) for v in code) ** 2 * scale**2 if abs(y) < 1 else (abs(x) - scale) ** 2
    return total


def check_best_scale(fn: Callable) -> str:
    "`fn(w, code, shares)` -> the share of the largest weight that is the best scale."
    import torch

    from cantolyric.quantization import normal_codebook, uniform_codebook

    shares = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    for seed, code in (
        (0, uniform_codebook(2)),
        (1, uniform_codebook(3)),
        (2, normal_codebook(2)),
        (3, normal_codebook(4)),
        (4, uniform_codebook(4)),
    ):
        w = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * 0.02
        w[seed] *= 1 + 2 * (seed % 2)

        want = min(shares, key=lambda s, w=w, code=code: _error(w.tolist(), code.tolist(), s * float(w.abs().max())))
        got, error = run(fn, w.clone(), code.clone(), list(shares))
        if error:
            return error
        if why := number(got, want, f"a block of 64 and a code of {len(code)} values", 1e-6):
            return why
    return RIGHT
