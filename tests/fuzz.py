"""Running a property on random examples until time is up, and the strategies that several entry points share."""

import copy
import os
import secrets
import signal
import time
from contextlib import contextmanager

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cantolyric.tones import SCHEMES, CantolyricError

SECONDS = float(os.environ.get("CANTOLYRIC_FUZZ_SECONDS", 120))  # for each entry point
SEED = os.environ.get("CANTOLYRIC_FUZZ_SEED")  # of the first round, as a failure reports it
ROUND = 200  # examples between two seeds
LIMIT = 60  # seconds of processor time for one example: rhymes under the reader "unambiguous" can take a third of that
LONGEST_MESSAGE = 1000


# ---- the driver


class Refused(Exception):
    "The library refused its input, as it should."


def check_message(message: str):
    "A message is a single line that says something."
    assert message.strip() and len(message.splitlines()) == 1, f"not one line: {message!r}"
    assert len(message) <= LONGEST_MESSAGE, f"{len(message):,} characters: {message[:200]!r}…"


def tried(function, *args, **kw):
    "What a function returns; `Refused` if it raises `CantolyricError`. Anything else it raises is a failure."
    try:
        return function(*args, **kw)
    except CantolyricError as e:
        check_message(str(e))
        raise Refused from None


class TooSlow(Exception):
    "An example took too long. Not an OSError, as TimeoutError is: the library handles those."


@contextmanager
def time_limit(seconds: float):
    """Fail if the block takes more processor time, or ten times as long on the clock (a busy machine is no fault).

    The alarm ends an endless loop; the check at the end sees an alarm that was swallowed.
    """

    def ring(*_):
        raise TooSlow(f"an example took more than {seconds} s")

    start, on_clock = time.process_time(), time.perf_counter()
    alarms = (
        {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM} if hasattr(signal, "setitimer") else {}
    )
    was = {name: signal.signal(name, ring) for name in alarms.values()}  # none on Windows
    for timer in alarms:
        signal.setitimer(timer, seconds * (10 if timer == signal.ITIMER_REAL else 1))
    try:
        yield
    finally:
        for timer in alarms:
            signal.setitimer(timer, 0)
        for name, handler in was.items():
            signal.signal(name, handler)
        if time.process_time() - start > seconds or time.perf_counter() - on_clock > 10 * seconds:
            ring()  # also where the library refused its input in the end


class Fuzz:
    "A property, which raises `Refused` where the library refused the input, and a count of what it was run on."

    def __init__(self, strategy, check, first=()):  # first: typical examples, which fill caches before time counts
        self.strategy, self.check = strategy, check
        self.examples = self.refused = 0
        self.slowest, self.of = 0.0, None  # seconds; the example that took them
        self.until = float("inf")
        for example in first:
            try:
                check(example)
            except Refused:
                pass

    def _one(self, example):
        if time.perf_counter() > self.until:
            return  # the rest of the last round
        start = time.process_time()
        self.examples += 1
        try:
            with time_limit(LIMIT):
                self.check(example)
        except Refused:
            self.refused += 1
        took = time.process_time() - start
        if took > self.slowest:
            self.slowest, self.of = took, example

    def round(self, seed: int, examples: int = ROUND):
        "Run some examples, the same ones for the same seed; a failure shows the smallest that fails."

        @hypothesis.seed(seed)
        @settings(
            max_examples=examples,
            derandomize=False,
            database=None,
            deadline=None,
            print_blob=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(self.strategy)
        def run(example):
            self._one(example)

        try:
            run()
        except Exception as e:
            self.until = float("inf")
            e.add_note(f"repeat it with CANTOLYRIC_FUZZ_SEED={seed}")
            raise

    def run(self, seconds: float = SECONDS):
        "Run fresh examples until the time is over."
        seed = int(SEED) if SEED else secrets.randbits(32)
        self.until = time.perf_counter() + seconds
        while time.perf_counter() < self.until:
            self.round(seed)
            seed += 1

    def __str__(self):
        return (
            f"{self.examples:,} examples, {self.refused:,} of them refused; the slowest took {self.slowest:.2f} s: "
            f"{str(self.of)[:200]}"
        )


# ---- values of any type

numbers = st.one_of(
    st.integers(-3, 300), st.integers(), st.floats(), st.sampled_from([2**31, 2**63, 2**70, -1, 0, 1e300])
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8), st.binary(max_size=4))
odd = st.one_of(
    scalars,
    st.recursive(
        scalars,
        lambda x: st.one_of(
            st.lists(x, max_size=3),
            st.tuples(x, x),
            st.dictionaries(st.text(max_size=4) | st.integers(0, 4), x, max_size=3),
        ),
        max_leaves=5,
    ),
    st.builds(object),
    st.sampled_from([int, Ellipsis, {1, 2}, range(3), "\ud800", "\0", "a" * 5000]),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=6),
    lambda x: st.one_of(st.lists(x, max_size=3), st.dictionaries(st.text(max_size=6), x, max_size=3)),
    max_leaves=6,
)


def one(*strategies):
    "One of some strategies, each as often as the others; `st.one_of` favours those that are alternatives themselves."
    return st.sampled_from(strategies).flatmap(lambda x: x)


def mostly(usual, rare=odd, times: int = 12):
    "A usual value, and once in a while a rare one."
    return one(*[usual] * times, rare)


# ---- characters that text is made of

HAN = "夜雨行銀長種為爲着㗎月光窗人大天我你唔係𠻺咗嘅"
ODD_HAN = "\uf90a\u2f00\U00030000\U0002f800〇々⺀㐀"  # compatibility forms, radicals, what no dictionary has
LINE_ENDS = ["\n", "\r\n", "\r", "\n\n", "\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\n\r"]
ODD_DIGITS = "²³①٣๓𝟘Ⅷ０２４３９½"
INVISIBLE = "\ufeff\u200b\u200d\u2060\u00ad\u202e\ufe0f\u0301"
MARKS = "，。！？、；：「」…—《》【】（）()[]{}<>/|\\*＊.-－,;:=＝'\"#＃&+~_!?@$%^ \u3000\t\xa0"
SIGNS = HAN + ODD_HAN + ODD_DIGITS + INVISIBLE + MARKS + "0123456789AaBXxZz" + "".join(LINE_ENDS) + "\0\x07\ud800💡é"

signs = st.sampled_from(SIGNS)
soup = st.one_of(st.text(signs, max_size=30), st.text(max_size=20))
schemes = mostly(st.sampled_from(sorted(SCHEMES)), st.one_of(odd, st.sampled_from(["0243 ", "Jyutping", ""])))
readers = mostly(st.sampled_from([None] * 6 + ["characters"] * 2 + ["unambiguous"]))


@st.composite
def mutated(draw, texts, pieces=signs, most: int = 4):
    "A text with some places changed; `texts` is a strategy, or a list to choose from."
    text = draw(texts if isinstance(texts, st.SearchStrategy) else st.sampled_from(texts))
    for _ in range(draw(st.integers(0, most))):
        at, size = draw(st.integers(0, len(text))), draw(st.sampled_from([0, 0, 1, 1, 2, 9]))
        text = text[:at] + "".join(draw(st.lists(pieces, max_size=2))) + text[at + size :]
    return text


places = st.one_of(st.integers(0, 80), st.integers(0, 4000), st.integers(0, 10**6))  # in a file, modulo its size
damage = st.one_of(
    st.tuples(st.just("cut"), places),
    st.tuples(st.just("flip"), st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4)),
    st.tuples(st.just("fill"), st.tuples(places, st.binary(min_size=1, max_size=8))),
)


def damaged(raw: bytes, how: tuple) -> bytes:
    "The bytes of a file after `damage`."
    kind, what = how
    if not raw:
        return raw
    if kind == "cut":
        return raw[: what % len(raw)]
    out = bytearray(raw)
    changes = (
        what if kind == "flip" else [(what[0] + k, out[(what[0] + k) % len(raw)] ^ b) for k, b in enumerate(what[1])]
    )
    for at, bits in changes:
        out[at % len(raw)] ^= bits
    return bytes(out)


json_change = st.tuples(st.integers(0, 200), st.one_of(st.just("drop"), st.tuples(st.just("put"), json_values)))


def changed(data, how: tuple):
    "A JSON value of which one part is replaced or dropped; part 0 is the whole."
    at, what = how
    parts = [(None, None)]

    def walk(x):
        for k in x if isinstance(x, dict) else range(len(x)) if isinstance(x, list) else ():
            parts.append((x, k))
            walk(x[k])

    data = copy.deepcopy(data)
    walk(data)
    owner, key = parts[at % len(parts)]
    if owner is None:
        return None if what == "drop" else what[1]
    if what == "drop":
        del owner[key]
    else:
        owner[key] = what[1]
    return data
