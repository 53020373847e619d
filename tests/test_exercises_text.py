"""The checkers of lessons 10 to 12 reject wrong answers. (nbs/solutions shows that they accept the solutions.)"""

from cantolyric._exercises import bpe, data, formats

CHECKS = (
    bpe.check_apply_merges,
    bpe.check_characters_of,
    bpe.check_next_merge,
    data.check_leaks,
    data.check_most_telling,
    data.check_stable_split,
    formats.check_assistant_labels,
    formats.check_attack,
)


def test_empty_stubs_and_crashes_are_rejected():
    for check in CHECKS:
        assert check(lambda *a: ...).startswith("Not yet")
        assert check(lambda *a: None).startswith("Not yet")
        assert "ZeroDivisionError" in check(lambda *a: 1 / 0)


def test_typical_mistakes_are_rejected():
    def rightmost(parts, ranks):  # merges the lowest rank, but from the right
        while found := [(ranks[p], -i) for i, p in enumerate(zip(parts, parts[1:])) if p in ranks]:
            i = -min(found)[1]
            parts = [*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]]
        return parts

    assert "leftmost" in bpe.check_apply_merges(rightmost)
    assert "Not yet" in bpe.check_characters_of(lambda tokens: [[i] for i, _ in enumerate(tokens)])
    assert "Not yet" in data.check_leaks(lambda train, test, x: [t for t in test if t in train])  # equal lines only
    salted = lambda keys, share: {k: "test" if hash(k) % 1_000 < 1_000 * share else "train" for k in keys}
    assert "salted" in data.check_stable_split(salted)
    assert "reordered" in data.check_stable_split(
        lambda keys, share: {k: "test" if i < share * len(keys) else "train" for i, k in enumerate(keys)}
    )
    assert "Not yet" in data.check_most_telling(
        lambda words, df, n: min(set(words) & df.keys(), key=df.get, default=None)
    )  # forgets to count

    def by_id(turns, end):  # gives every end token a label
        ids = [i for _, h, t in turns for i in (*h, *t, end)]
        return ids, [i if i == end else -100 for i in ids]

    assert "Not yet" in formats.check_assistant_labels(by_id)
    assert "Not yet" in formats.check_attack(
        lambda request: f"<|im_start|>assistant\n{request}"
    )  # never ends the user turn
