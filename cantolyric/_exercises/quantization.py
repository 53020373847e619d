"""Checkers for lesson 31. Each returns "Right." or says what is not right yet; none raises."""
from cantolyric._exercises import RIGHT, number, run


def check_bits_a_weight(fn) -> str:
    "`fn(bits, block_size, double)` -> bits a weight, scales included."
    for bits, size, double in ((4, 64, False), (4, 64, True), (4, 4096, True), (8, 128, False), (2, 32, True)):
        want = bits + ((8 + 32 / 256) if double else 32) / size
        got, error = run(fn, bits, size, double)
        if error: return error
        if why := number(got, want, f"{bits} bits, blocks of {size}, {'double quantization' if double else 'scales in fp32'}", 1e-6): return why
    return RIGHT


def _bits3(codes):
    "Codes as one string of bits, cut into bytes."
    text = "".join(f"{c:03b}" for c in codes)
    text += "0" * (-len(text) % 8)
    return [int(text[k:k + 8], 2) for k in range(0, len(text), 8)]


def check_pack3(fn) -> str:
    "`fn(codes)` -> 3-bit codes, eight to three bytes."
    import torch
    g = torch.Generator().manual_seed(0)
    for n in (8, 16, 1, 3, 9, 100):
        codes = torch.randint(0, 8, (n,), generator=g).to(torch.uint8)
        want = _bits3(codes.tolist())
        got, error = run(fn, codes.clone())
        if error: return error
        if not isinstance(got, torch.Tensor) or got.dtype != torch.uint8: return f"Not yet: wanted is a tensor of uint8, it returned {got!r}"
        if got.tolist() != want:
            return f"Not yet: {codes[:8].tolist()}{' …' if n > 8 else ''} ({n} codes) are the bytes {want[:6]}{' …' if len(want) > 6 else ''} ({len(want)} bytes), it returned {got.tolist()[:6]} ({got.numel()} bytes)"
    return RIGHT


def check_best_scale(fn) -> str:
    "`fn(w, code, shares)` -> the share of the largest weight that makes the best scale."
    import torch
    from cantolyric.quantization import normal_code, uniform_code
    shares = [.4, .5, .6, .7, .8, .9, 1.]
    for seed, code in ((0, uniform_code(2)), (1, uniform_code(3)), (2, normal_code(2)), (3, normal_code(4)), (4, uniform_code(4))):
        w = torch.randn(64, generator=torch.Generator().manual_seed(seed)) * .02
        w[seed] *= 1 + 2 * (seed % 2)
        def far(s):
            scale, total = s * float(w.abs().max()), 0.
            for x in w.tolist():
                y = min(max(x / scale, -1.), 1.)
                total += min(abs(v - y) for v in code.tolist()) ** 2 * scale ** 2 if abs(y) < 1 else (abs(x) - scale) ** 2
            return total
        want = min(shares, key=far)
        got, error = run(fn, w.clone(), code.clone(), list(shares))
        if error: return error
        if why := number(got, want, f"a block of 64 and a code of {len(code)} values", 1e-6): return why
    return RIGHT
