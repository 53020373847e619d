"""Property tests: the same examples on every run, fresh ones with `--hypothesis-profile=fresh` (`make test-slow`).

Hypothesis itself marks these tests `hypothesis`, so `pytest -m hypothesis` runs them alone.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# A slow or busy machine must not fail a test, so nothing is timed.
UNTIMED = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", derandomize=True, database=None, **UNTIMED)
settings.register_profile("fresh", derandomize=False, print_blob=True, **UNTIMED)
settings.load_profile("fixed")


def pytest_sessionstart():
    """Keep fixed examples independent of what is imported.

    Hypothesis also draws constants that stand in the modules loaded so far. With `derandomize` alone, the examples
    would still change with the tests that ran before in the same process, and with every edit of the library.
    """
    if settings().derandomize and hasattr(providers, "_get_local_constants"):
        providers._get_local_constants = providers.Constants  # there is no public switch


@pytest.fixture(scope="session")
def tiny_table():
    "The token table of the tiny base."
    from cantolyric.base import load_base
    from cantolyric.constraint.vocabulary import TokenTable

    return TokenTable.from_tokenizer(load_base()[1])
