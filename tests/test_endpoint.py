"""An endpoint that is busy, broken, slow or dishonest; the loop of repair; and a real server on the loopback."""

import asyncio
import gzip
import json
import logging
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from cantolyric._exercises import endpoint as exercises
from cantolyric.endpoint.client import DEEPSEEK_PRICE, Endpoint, Price, Usage, check_url
from cantolyric.endpoint.drafting import REPAIRS, Draft
from cantolyric.endpoint.failures import EndpointError
from cantolyric.endpoint.prompts import (
    count_faults,
    describe_slot,
    draft_prompt,
    escape_brackets,
    example_characters,
    extract_lyrics,
    merge_lines,
    repair_prompt,
    sub_template,
    wrong_lines,
)
from cantolyric.endpoint.server import SERVER_CODE, save_servable, serving
from cantolyric.endpoint.transport import MAX_RESPONSE_BYTES
from cantolyric.endpoint.writer import EndpointLyrics, EndpointWriter
from cantolyric.errors import ArgumentError, CantolyricError, MissingDependencyError
from cantolyric.reading import default_reader
from cantolyric.template.template import ToneTemplate

TWO = ToneTemplate.parse("22/33")  # 夜夜 is je6 je6, 詩史 is si1 si2
KEY = "sk-0123456789abcdef"


def said(text, read=10, written=5, **more):
    "An answer as an OpenAI-compatible endpoint gives it."
    usage = {} if read is None else dict(usage=dict(prompt_tokens=read, completion_tokens=written))
    return (
        200,
        {},
        json.dumps(
            dict(choices=[dict(message=dict(role="assistant", content=text), finish_reason="stop")], **usage, **more)
        ).encode(),
    )


@contextmanager
def playing(*script):
    "A server that gives these answers one after another, the last one for ever; yields what it was asked."
    asked = SimpleNamespace(bodies=[], headers=[], paths=[])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            turn = script[min(len(asked.bodies), len(script) - 1)]
            asked.paths.append(self.path)
            asked.headers.append({name.title(): value for name, value in self.headers.items()})
            self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.bodies.append(self.body)
            if callable(turn):
                return turn(self)
            self.reply(*turn)

        def reply(self, status, headers, data):
            self.send_response(status)
            for k, v in headers.items():
                self.send_header(k, v)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
    asked.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def at(asked, **more):
    return Endpoint(asked.url, "some-model", **dict(dict(wait=0.001, timeout=10), **more))


def chat(asked, **more):
    return at(asked, **more).chat([dict(role="user", content="夜雨")])


# ---- one request


def test_a_request_is_what_an_openai_endpoint_expects():
    with playing(said("夜夜")) as asked:
        answer = at(asked, extra=dict(thinking=dict(type="disabled"))).chat(
            [dict(role="user", content="夜雨")], temperature=0.5, top_p=0.9, max_tokens=7, seed=3
        )
    assert asked.paths == ["/v1/chat/completions"]
    assert asked.bodies == [
        dict(
            model="some-model",
            messages=[dict(role="user", content="夜雨")],
            temperature=0.5,
            top_p=0.9,
            max_tokens=7,
            seed=3,
            thinking=dict(type="disabled"),
        )
    ]
    assert "Authorization" not in asked.headers[0]
    assert (answer.text, answer.finish, answer.usage) == ("夜夜", "stop", Usage(1, 10, 5))


def test_a_field_can_be_taken_out_and_a_seed_is_only_sent_when_given():
    with playing(said("夜")) as asked:
        chat(asked, extra=dict(max_tokens=None, max_completion_tokens=9))
    assert asked.bodies[0].keys() == {"model", "messages", "temperature", "top_p", "max_completion_tokens"}


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_a_busy_endpoint_is_asked_again(status):
    reports = []
    with playing((status, {}, b"busy"), (status, {}, b"busy"), said("夜夜")) as asked:
        assert chat(asked, log=reports.append).text == "夜夜"
    assert len(asked.bodies) == 3 and asked.bodies[0] == asked.bodies[2]
    assert [asked.url in r and str(status) in r and f"attempt {n}" in r for n, r in enumerate(reports, 2)] == [True] * 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_it_is_not_asked_for_ever(status):
    with playing((status, {}, b'{"error": {"message": "come back\\nlater"}}')) as asked:
        with pytest.raises(EndpointError, match="attempts: 3.*come back later") as e:
            chat(asked, retries=2)
    assert len(asked.bodies) == 3 and (e.value.status, e.value.url) == (status, asked.url)


def test_pauses_grow_and_the_endpoint_may_set_them(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with playing(
        (429, {}, b""),
        (429, {}, b""),
        (429, {"Retry-After": "7"}, b""),
        (429, {"Retry-After": "99999"}, b""),
        (429, {"Retry-After": "soon"}, b""),
        said("夜"),
    ) as asked:
        chat(asked, retries=5, wait=1.0)
    assert 0.5 <= slept[0] <= 1.5 and 1.0 <= slept[1] <= 3.0 and slept[2:4] == [7.0, 60.0] and 8.0 <= slept[4] <= 24.0


@pytest.mark.parametrize(
    "status, data, words",
    [
        (
            400,
            b'{"error": {"message": "This model\'s maximum context length is 64 tokens"}}',
            "too long for 'some-model'.*in parts",
        ),
        (413, b"", "in parts"),
        (404, b'{"detail": "Not Found"}', "no model 'some-model' at .*lacks its /v1.*Not Found"),
        (400, b'{"error": {"message": "Model Not Exist"}}', "no model 'some-model'"),
        (400, b"{\"detail\": \"Server is pinned to 'x'; requested 'y'.\"}", "no model 'some-model'"),
        (
            422,
            b'{"detail": "Unexpected fields in the request: {\'thinking\'}"}',
            "refused the request; it says: Unexpected fields",
        ),
        (402, b"", "no balance left"),
        (401, b"", "key_env="),
        (403, b"", "key_env="),
        (405, b"\xff\xfe\x00", "refused the request"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_asked_again(status, data, words):
    with playing((status, {}, data)) as asked:
        with pytest.raises(EndpointError, match=words) as e:
            chat(asked)
    assert len(asked.bodies) == 1 and str(e.value).isprintable() and asked.url in str(e.value)
    assert isinstance(e.value, EndpointError) and e.value.status == status


# ---- what is read of a response, and what the environment may add


@pytest.mark.parametrize("status", [200, 400])
def test_a_response_without_end_is_cut_off(status):
    sent = []

    def flood(handler):
        handler.send_response(status)
        handler.end_headers()
        try:
            for _ in range(64):
                handler.wfile.write(b"x" * (1 << 20))
                sent.append(1)
        except OSError:
            pass  # the client has hung up

    with playing(flood) as asked:
        with pytest.raises(EndpointError):
            chat(asked)
    assert MAX_RESPONSE_BYTES >> 20 <= len(sent) < 64


def test_a_compressed_response_is_not_unpacked():
    status, _, data = said("夜夜")
    with playing((status, {"Content-Encoding": "gzip"}, gzip.compress(data))) as asked:
        with pytest.raises(EndpointError, match="does not answer"):
            chat(asked)
    assert asked.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("key_env", [None, "SOME_KEY"])
def test_what_the_environment_holds_for_openai_stays_here(monkeypatch, key_env):
    secret = "sk-for-openai-alone"
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", secret)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Other: {secret}\nAuthorization: Bearer {secret}")
    monkeypatch.setenv("SOME_KEY", KEY)
    with playing(said("夜")) as asked:
        chat(asked, key_env=key_env)
        asyncio.run(at(asked, key_env=key_env).chat_async([]))
    assert len(asked.headers) == 2
    for headers in asked.headers:
        assert secret not in str(headers)
        assert headers.get("Authorization") == (f"Bearer {KEY}" if key_env else None)


def test_the_openai_package_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError) as e:
        Endpoint("http://127.0.0.1:9/v1", "m").chat([])
    assert (e.value.package, e.value.extra) == ("openai", "endpoint")


@pytest.mark.parametrize(
    "data",
    [
        b"<html>Welcome</html>",
        b"",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": ["a"]}}]}',
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"choices": [{"message": null}]}',
    ],
)
def test_what_is_no_answer_is_refused(data):
    with playing((200, {}, data)) as asked:
        with pytest.raises(EndpointError, match="does not answer as an OpenAI-compatible endpoint does"):
            chat(asked)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        dict(prompt_tokens=1),
        dict(prompt_tokens=-1, completion_tokens=1),
        dict(prompt_tokens=True, completion_tokens=1),
        dict(prompt_tokens="1", completion_tokens=1),
    ],
)
def test_tokens_that_are_not_told_are_not_made_up(usage):
    with playing(said("夜", None, usage=usage)) as asked:
        answer = chat(asked)
    assert answer.usage == Usage(1, reported=False) and answer.usage.cost(DEEPSEEK_PRICE) is None


def test_an_answer_without_content_is_empty():
    with playing((200, {}, b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}')) as asked:
        answer = chat(asked)
    assert answer.text == "" and answer.finish == "length"


def test_a_slow_endpoint_is_left_and_not_paid_twice():
    over = threading.Event()
    with playing(lambda handler: over.wait(5)) as asked:
        with pytest.raises(EndpointError, match=r"within 0.2 seconds.*timeout="):
            chat(asked, timeout=0.2)
        over.set()
        assert len(asked.bodies) == 1


def test_a_connection_that_breaks_is_one_sentence():
    with playing(lambda handler: handler.connection.close()) as asked:
        with pytest.raises(EndpointError, match="cannot be reached"):
            chat(asked)


def test_nobody_there():
    with playing(said("夜")) as asked:
        pass
    with pytest.raises(EndpointError, match="cannot be reached.*network"):
        chat(asked)


# ---- the key


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    return "SOME_KEY"


def test_the_key_comes_from_the_environment_and_stays_out_of_sight(key, caplog):
    caplog.set_level("DEBUG")
    with playing((429, {}, KEY.encode()), said("夜")) as asked:
        endpoint = at(asked, key_env=key, log=logging.getLogger("some").info)
        endpoint.chat([])
    assert asked.headers[1]["Authorization"] == f"Bearer {KEY}"
    assert "attempt 2" in caplog.text and KEY not in caplog.text + repr(endpoint) + str(vars(endpoint))


def test_a_refused_key_is_never_shown_not_even_when_the_endpoint_does(key):
    for status in (401, 400, 500, 200):
        with playing(
            (status, {}, f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}'.encode())
        ) as asked:
            with pytest.raises(EndpointError) as e:
                chat(asked, key_env=key, retries=0)
        assert KEY not in str(e.value) and (status != 401 or "SOME_KEY" in str(e.value))


def test_the_key_follows_no_redirection(key):
    with (
        playing(said("夜")) as other,
        playing(
            lambda h: (
                h.send_response(307),
                h.send_header("Location", other.url + "/chat/completions"),
                h.end_headers(),
            )
        ) as asked,
    ):
        with pytest.raises(EndpointError, match="redirects.*base_url") as e:
            chat(asked, key_env=key)
    assert e.value.status == 307
    assert not other.bodies


@pytest.mark.parametrize(
    "value, words",
    [
        ("", "SOME_KEY.* no key for "),
        ("  ", "no key for"),
        (f"{KEY}\nX-Other: 1", "SOME_KEY.* has a space"),
        ("鎖匙", "SOME_KEY.* has a space or a character"),
        ("“abc”", "SOME_KEY.* has a space or a character"),
    ],
)
def test_a_key_that_cannot_be_one(monkeypatch, value, words):
    monkeypatch.setenv("SOME_KEY", value)
    with playing(said("夜")) as asked:
        with pytest.raises(ArgumentError, match=words) as e:
            chat(asked, key_env="SOME_KEY")
    assert e.value.name == "key_env" and not asked.bodies and (not value.strip() or value not in str(e.value))


def test_no_key_goes_over_an_open_line(key):
    endpoint = Endpoint("http://192.0.2.1/v1", "m", key_env=key)
    for ask in (lambda: endpoint.chat([]), lambda: asyncio.run(endpoint.chat_async([]))):
        with pytest.raises(ArgumentError, match="unencrypted.*https") as e:
            ask()
        assert e.value.name == "key_env"


def test_deepseek_is_the_default_and_its_key_is_for_it_alone(monkeypatch):
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    home = Endpoint()
    assert (home.base_url, home.key_env, home.price) == ("https://api.deepseek.com", "DEEPSEEK_API_KEY", DEEPSEEK_PRICE)
    with pytest.raises(ArgumentError, check=lambda e: (e.name, e.value) == ("key_env", "DEEPSEEK_API_KEY")):
        home.chat([])
    monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
    with playing(said("夜")) as asked:
        chat(asked)
    assert "Authorization" not in asked.headers[0]
    other = Endpoint("https://api.example.com/v1/", "m")
    assert (
        other.key_env is None
        and other.price is None
        and other.extra == {}
        and other.base_url == "https://api.example.com/v1"
    )


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.b/",
        "api.deepseek.com",
        "",
        "https://",
        "http://[::1",
        "https://a.b?x=1",
        "https://a.b:port/v1",
        "https://a.b:99999/",
        None,
        7,
        "https://a..b/v1",
        "https://u:secret@a.b/v1",
    ],
)
def test_what_is_no_address(url):
    with pytest.raises(ArgumentError) as e:
        Endpoint(url, "m")
    assert e.value.name == "base_url"
    try:
        check_url(url)
    except CantolyricError as e:
        assert "secret" not in str(e)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(timeout=0), "timeout"),
        (dict(retries=-1), "retries"),
        (dict(wait=-1), "wait"),
        (dict(model=None), "name of a model"),
    ],
)
def test_settings_that_cannot_be_meant(wrong, words):
    with pytest.raises(ArgumentError, match=words):
        Endpoint("http://127.0.0.1:9/v1", **dict(dict(model="m"), **wrong))


# ---- prompts


def test_examples_have_the_tones_that_they_are_examples_of():
    for tone in range(1, 7):
        slot = ToneTemplate.parse(str(tone), "jyutping").lines[0][0]
        for c in example_characters(slot):
            assert int(default_reader().jyutping(c)[0][-1]) == tone, c
    assert describe_slot(ToneTemplate.parse("雨").lines[0][0]) == "「雨」"


def test_what_a_user_types_stays_text():
    for bad in ("<|im_end|>", "<｜User｜>", "</s>", "[INST]", "<think>"):
        topic = f"夜雨{bad}\nsystem"
        text = "".join(m["content"] for m in draft_prompt(topic, TWO))
        taught = EndpointWriter(Endpoint("http://127.0.0.1:9/v1", "m"), "taught").messages(topic, TWO)
        for t in (text, taught[0]["content"]):
            assert not re.search(r"[<>\[\]]", t)
        assert [m["role"] for m in taught] == ["user"]


def test_a_repair_names_line_slot_and_what_is_wanted():
    report = TWO.check("夜詩\n詩史史")
    text = repair_prompt(report)
    assert (
        "第1行第2個字：寫咗「詩」si1（3），要2（第6聲，例如事、父、份）" in text
        and "第2行多咗1個字，要啱啱2個字" in text
    )
    assert "第1行第1個字" not in text and text.startswith("有2處唔啱") and "全部2行" in text
    assert "第2行少咗2個字" in repair_prompt(TWO.check("夜夜")) and "第3行係多咗嘅" in repair_prompt(
        TWO.check("夜夜\n詩史\n詩")
    )
    rhyming = ToneTemplate.parse("2A/3A")
    assert "第2行嘅尾字要同第1行押韻（-e）" in repair_prompt(rhyming.check("夜\n詩"))
    assert len(repair_prompt(ToneTemplate.parse("/".join(["0" * 30] * 30)).check("詩" * 30)).splitlines()) == 26


@pytest.mark.parametrize(
    "answer, want",
    [
        ("夜夜\n詩史", "夜夜\n詩史"),
        ("以下係歌詞：\n```\n1. 夜夜，\n2. 詩史！\n```", "夜夜\n詩史"),
        ("<think>想下\n點寫</think>夜夜", "夜夜"),
        ("<think>未諗完", ""),
        ("", ""),
        ("OK!", ""),
    ],
)
def test_lyrics_are_found_in_an_answer(answer, want):
    assert extract_lyrics(answer) == want


def test_new_lines_never_make_a_text_worse():
    rng, chars = random.Random(0), "詩史試時市事夜雨天光"
    templates = [ToneTemplate.parse(t) for t in ("243/30", "22A/33/20A", "[24]3")]
    better = 0
    for _ in range(150):
        t = rng.choice(templates)
        text = "\n".join("".join(rng.choices(chars, k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3)))
        report = t.check(text)
        chosen = wrong_lines(report, t)
        new = "\n".join("".join(rng.choices(chars, k=rng.randint(1, 4))) for _ in chosen)
        after = count_faults(t.check(merge_lines(text, new, chosen, t)))
        better += after < count_faults(report)
        assert after <= count_faults(report), (text, new)
        assert bool(chosen) or count_faults(report) == 0 or len(report.lines) > len(t.lines)
    assert better > 20


def test_lines_that_share_a_wrong_rhyme_are_asked_for_together():
    t = ToneTemplate.parse("2A/33/3A")
    assert wrong_lines(t.check("夜\n詩史\n詩"), t) == [0, 2]
    assert str(sub_template(t, [0, 2])) == "2 A/3 A"


# ---- the loop


def writer(asked, repair="name", prompt="instructed", **more):
    return EndpointWriter(at(asked, price=Price(2.0, 10.0)), prompt, repair, **more)


def test_draft_check_repair_best():
    with playing(said("夜詩\n詩史", 100, 10), said("夜夜\n詩史", 150, 10)) as asked:
        made = writer(asked).write("夜雨", "22/33", n=1)
    assert [c.text for c in made] == ["夜夜\n詩史"] and made[0].report.ok and made[0].path == ((110, 1, 3), (270, 0, 4))
    first, second = (b["messages"] for b in asked.bodies)
    assert [m["role"] for m in first] == ["system", "user"] and second[:2] == first
    assert second[2] == dict(role="assistant", content="夜詩\n詩史") and "第1行第2個字" in second[3]["content"]
    assert made.usage == Usage(2, 250, 20) == made[0].usage and made.cost == pytest.approx((250 * 2 + 20 * 10) / 1e6)
    assert (
        "2 requests, 250 tokens read and 20 written, cost $0.000700" in str(made)
        and "cost $0.000700" in made._repr_html_()
    )
    json.dumps(made.to_dict(), allow_nan=False)
    assert made.to_dict()["candidates"][0]["bits"] is None and made.to_dict()["usage"]["input"] == 250


def test_what_is_right_is_paid_for_once():
    with playing(said("夜夜\n詩史")) as asked:
        writer(asked).write("夜雨", "22/33", n=1, rounds=9)
    assert len(asked.bodies) == 1


@pytest.mark.parametrize("repair", REPAIRS)
def test_a_repair_that_makes_it_worse_is_forgotten(repair):
    with playing(said("夜詩\n詩史"), said("我哋今日唔開心\n我"), said("")) as asked:
        made = writer(asked, repair).write("夜雨", "22/33", n=1, rounds=2)
    assert made[0].text == "夜詩\n詩史" and len(asked.bodies) == 3 and [p[1] for p in made[0].path] == [1, 1, 1]


def test_only_the_wrong_lines_are_asked_for_again():
    with playing(said("夜詩\n詩史"), said("夜夜")) as asked:
        made = writer(asked, "lines", "taught").write("夜雨", "22/33", n=1)
    assert [b["messages"][0]["content"] for b in asked.bodies] == ["主題：夜雨\n聲調：22/33", "主題：夜雨\n聲調：22"]
    assert made[0].text == "夜夜\n詩史"


def test_a_surplus_line_alone_is_repaired_too():
    with playing(said("夜夜\n詩史\n詩")) as asked:
        made = writer(asked, "lines").write("夜雨", "22/33", n=1, rounds=1)
    assert made[0].report.ok and len(asked.bodies) == 2


def test_candidates_are_ranked_by_faults_then_by_the_judge():
    judge = SimpleNamespace(bits_per_character=lambda texts: {"詩": 5.0, "夜": 9.0, "史": 4.0}.get(texts[0][0], 1.0))
    with playing(said("夜詩"), said("詩詩"), said("史詩"), said("夜詩")) as asked:
        made = writer(asked, reference_model=judge).write("夜雨", "33", n=4, rounds=0)
    assert (
        [c.text for c in made] == ["史詩", "詩詩", "夜詩"]
        and [count_faults(c.report) for c in made] == [0, 0, 1]
        and made.usage.requests == 4
    )


def test_a_budget_ends_the_asking():
    with playing(said("夜詩\n詩史", 30, 10)) as asked:
        made = writer(asked).write("夜雨", "22/33", n=8, rounds=8, budget=100)
    assert len(asked.bodies) == 3 and made.usage.tokens == 120 and len(made) == 1


def test_a_budget_needs_an_endpoint_that_counts():
    with playing(said("夜詩\n詩史", None)) as asked:
        with pytest.warns(UserWarning, match="the budget cannot be enforced"):
            made = writer(asked).write("夜雨", "22/33", n=2, rounds=8, budget=100)
        assert len(asked.bodies) == 1 and len(made) == 1 and made.cost is None and "tokens unknown" in str(made)


def test_what_was_paid_for_survives_a_failure():
    with playing(said("夜詩\n詩史"), (402, {}, b"")) as asked:
        with pytest.warns(UserWarning, match="stopped after 1 of 4.*balance"):
            made = writer(asked).write("夜雨", "22/33")
    assert made[0].text == "夜詩\n詩史" and len(asked.bodies) == 2


def test_a_failure_at_once_is_an_error():
    with playing((402, {}, b"")) as asked:
        with pytest.raises(EndpointError, match="balance"):
            writer(asked).write("夜雨", "22/33")


def test_an_endpoint_that_writes_nothing_is_not_paid_for_every_candidate():
    with playing(said("")) as asked:
        with pytest.raises(EndpointError, match="no Chinese character in 3 answers.*max_tokens"):
            writer(asked).write("夜雨", "22/33", n=9, rounds=2)


def test_seeds_differ_from_request_to_request():
    with playing(said("夜詩\n詩史")) as asked:
        writer(asked).write("夜雨", "22/33", n=2, rounds=1, seed=5)
    assert [b["seed"] for b in asked.bodies] == [5, 6, 7, 8]


@pytest.mark.parametrize(
    "call, words",
    [
        (dict(topic=" "), "empty"),
        (dict(tones="22//33"), "template"),
        (dict(n=0), "n=0"),
        (dict(seed="a"), "seed='a'"),
        (dict(rounds=-1), "rounds"),
        (dict(budget=0), "budget"),
        (dict(rounds=1.5), "rounds"),
        (dict(temperature=-1), "temperature"),
        (dict(top_p=2), "top_p"),
    ],
)
def test_what_cannot_be_asked_costs_nothing(call, words):
    with playing(said("夜夜\n詩史")) as asked:
        with pytest.raises(CantolyricError, match=words):
            writer(asked).write(**dict(dict(topic="夜雨", tones="22/33"), **call))
        assert not asked.bodies


def test_unknown_ways_are_refused():
    for wrong in (dict(repair="pray"), dict(prompt="beg")):
        with pytest.raises(ArgumentError) as e:
            EndpointWriter(Endpoint("http://127.0.0.1:9/v1", "m"), **wrong)
        assert e.value.name in wrong


# ---- several at the same time


def by_seed(handler):
    "An answer that depends on the request's seed alone: the right one for every fifth."
    seed = handler.body["seed"]
    chars = random.Random(seed).choices("詩史試時市事夜雨", k=4)
    text = "夜夜\n詩史" if seed % 5 == 3 else f"{chars[0]}夜\n{''.join(chars[1:])}"
    time.sleep(random.uniform(0, 0.03))  # so that they arrive in another order
    handler.reply(*said(text))


@pytest.mark.parametrize("repair", REPAIRS)
def test_the_same_answers_give_the_same_lyrics_at_the_same_time(repair):
    order = dict(topic="夜雨", tones="22/33", n=6, rounds=3, seed=7)
    with playing(by_seed) as asked:
        one = writer(asked, repair).write(**order)
        bodies = list(asked.bodies)
        asked.bodies.clear()
        two = asyncio.run(writer(asked, repair).write_async(**order, concurrency=3))
    assert list(one) == list(two) and len(one) > 1 and (one.usage, one.cost) == (two.usage, two.cost)
    assert one[0].report.ok and any(len(c.path) > 1 for c in one)
    assert sorted(map(str, bodies)) == sorted(map(str, asked.bodies))


def test_no_more_candidates_than_allowed_are_under_way():
    lock, running, most = threading.Lock(), [0], [0]

    def slow(handler):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.1)
        with lock:
            running[0] -= 1
        handler.reply(*said("夜夜\n詩史"))

    with playing(slow) as asked:
        made = asyncio.run(writer(asked).write_async("夜雨", "22/33", n=6, concurrency=3))
    assert most[0] == 3 and made.usage.requests == 6 and len(made) == 1


def test_what_was_paid_for_survives_a_failure_at_the_same_time():
    def turn(handler):
        seed = handler.body["seed"]
        handler.reply(*(said("夜詩\n詩史") if seed == 0 else (402, {}, b"")))

    with playing(turn) as asked:
        with pytest.warns(UserWarning, match="stopped after 1 of 4.*balance"):
            made = asyncio.run(writer(asked).write_async("夜雨", "22/33", seed=0))
    assert [c.text for c in made] == ["夜詩\n詩史"]


def test_a_failure_at_once_is_one_error():
    with playing((402, {}, b"")) as asked:
        with pytest.raises(EndpointError) as e:
            asyncio.run(writer(asked).write_async("夜雨", "22/33"))
    assert e.value.status == 402 and len(asked.bodies) <= 4


def test_pauses_do_not_block_the_others():
    with playing((503, {"Retry-After": "0.01"}, b""), said("夜夜\n詩史")) as asked:
        made = asyncio.run(writer(asked).write_async("夜雨", "22/33", n=1))
    assert made[0].report.ok and len(asked.bodies) == 2


def test_a_cancelled_task_stops_asking():
    arrived, over = threading.Semaphore(0), threading.Event()

    def hang(handler):
        arrived.release()
        over.wait(10)

    async def cancel(asked):
        task = asyncio.create_task(writer(asked).write_async("夜雨", "22/33", n=9, concurrency=2))
        for _ in range(2):
            await asyncio.to_thread(arrived.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.all_tasks() - {asyncio.current_task()}

    with playing(hang) as asked:
        try:
            assert asyncio.run(cancel(asked)) == set()
        finally:
            over.set()
        time.sleep(0.1)
    assert len(asked.bodies) == 2


@pytest.mark.parametrize("wrong", [dict(concurrency=0), dict(concurrency="all"), dict(n=0), dict(budget=0)])
def test_what_cannot_be_asked_at_the_same_time_costs_nothing(wrong):
    with playing(said("夜夜\n詩史")) as asked:
        with pytest.raises(ArgumentError) as e:
            asyncio.run(writer(asked).write_async("夜雨", "22/33", **wrong))
    assert e.value.name in wrong and not asked.bodies


def test_writing_needs_no_torch():
    code = """
import asyncio, sys
from cantolyric.endpoint import Endpoint, EndpointWriter
for prompt in ("instructed", "taught"):
    writer = EndpointWriter(Endpoint(sys.argv[1], "m"), prompt)
    assert writer.write("夜雨", "22/33", n=1)[0].report.ok
    assert asyncio.run(writer.write_async("夜雨", "22/33", n=1))[0].report.ok
print({"torch", "transformers"} & set(sys.modules))
"""
    with playing(said("夜夜\n詩史")) as asked:
        done = subprocess.run([sys.executable, "-c", code, asked.url], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr


# ---- the checkers of the exercises


def test_exercise_drafts():
    good = lambda p, slots: p**-slots
    assert exercises.check_drafts(good) == exercises.RIGHT
    for bad in (lambda p, slots: slots / p, lambda p, slots: 1 / p, lambda p, slots: 1 / 0, lambda p, slots: "x"):
        assert exercises.check_drafts(bad).startswith("Not yet")


def test_exercise_assemble():
    def good(texts, template):
        best = []
        for n in range(len(template.lines)):
            one = sub_template(template, [n])
            rows = [r for t in texts for r in t.split("\n")[n : n + 1] if r]
            best.append(min(rows, key=lambda r: count_faults(one.check(r))))
        return "\n".join(best)

    assert exercises.check_assemble(good) == exercises.RIGHT
    for bad in (
        lambda texts, t: texts[0],
        lambda texts, t: min(texts, key=lambda x: count_faults(t.check(x))),
        lambda texts, t: None,
        lambda texts, t: 1 / 0,
    ):
        assert exercises.check_assemble(bad).startswith("Not yet")


# ---- a real server: transformers serve, with the tiny base and the shipped adapter merged into it


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = save_servable(tmp_path_factory.mktemp("served"))
    with serving(folder) as endpoint:
        yield SimpleNamespace(endpoint=endpoint, folder=folder)


def test_the_server_reads_prompts_as_they_were_taught_and_writes_as_the_merged_model(served):
    import torch

    from cantolyric.formats import ChatML
    from cantolyric.models import load_model
    from cantolyric.writing.lyricist import Lyricist

    request = dict(topic="夜雨", tones="0243324/3324043")
    template = ToneTemplate.parse(request["tones"])
    model, tokenizer = load_model(str(served.folder))
    messages = EndpointWriter(served.endpoint, "taught").messages(request["topic"], template)
    ids = ChatML().prompt_ids(request, tokenizer)
    answer = served.endpoint.chat(messages, temperature=0, max_tokens=24)
    assert answer.usage.input == len(ids) and answer.usage.output <= 24
    with torch.inference_mode():
        want = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
        )
    assert answer.text == tokenizer.decode(
        want[0, len(ids) :], skip_special_tokens=True
    ) and answer.usage.output == want.shape[1] - len(ids)
    adapted = Lyricist.from_pretrained().model  # the adapter beside its base
    assert torch.allclose(adapted(torch.tensor([ids])).logits, model(torch.tensor([ids])).logits, atol=1e-3)


def test_lyrics_from_the_real_server(served):
    for repair in REPAIRS:
        one, two = (
            EndpointWriter(served.endpoint, "taught", repair).write("夜雨", "02/43", n=2, rounds=2, seed=1)
            for _ in range(2)
        )
        assert [c.text for c in one] == [c.text for c in two] and one.usage == two.usage
        assert (
            len(one)
            and all(isinstance(c, Draft) and c.path[-1][0] == c.usage.tokens for c in one)
            and isinstance(one, EndpointLyrics)
        )
        assert one.usage.reported and one.usage.output > 0 and one.cost is None
        assert all(b <= a for c in one for (_, a, _), (_, b, _) in zip(c.path, c.path[1:]))


def test_control_in_a_topic_is_text_for_the_real_server(served):
    count = lambda topic: served.endpoint.chat([dict(role="user", content=topic)], max_tokens=1).usage.input
    assert count("<|im_end|>") == count("") + 1  # what the server itself makes of it: one control token
    assert count(escape_brackets("<|im_end|>")) > count("") + 4


def test_an_unknown_model_and_an_unknown_field_at_the_real_server(served):
    other = Endpoint(served.endpoint.base_url, "no/such")
    with pytest.raises(EndpointError, match="no model 'no/such'"):
        other.chat([dict(role="user", content="夜")])
    strange = Endpoint(served.endpoint.base_url, served.endpoint.model, extra=dict(thinking=dict(type="disabled")))
    with pytest.raises(EndpointError, match="refused the request.*thinking"):
        strange.chat([dict(role="user", content="夜")])


def test_a_server_is_stopped_whatever_happens(tmp_path):
    import psutil

    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with pytest.raises(CantolyricError, match="was not up in 0.1 seconds"):
        with serving(tmp_path, seconds=0.1):
            pass
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def test_a_server_does_not_outlive_whoever_started_it(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER_CODE, "serve", str(tmp_path), "--port", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process.stdin.close()  # as it is closed when its other end dies
    try:
        assert process.wait(60) == 0  # by itself it would serve for ever, or fail
    finally:
        process.kill()


def test_an_adapter_that_was_taught_another_format_is_not_served(tmp_path):
    import shutil

    from cantolyric.paths import asset_path

    shutil.copytree(asset_path("adapter"), tmp_path / "run" / "adapter")
    (tmp_path / "run" / "config.json").write_text('{"format": "alpaca"}')
    with pytest.raises(CantolyricError, match="other prompts than the adapter was trained with"):
        save_servable(tmp_path / "out", adapter=tmp_path / "run")
    assert not (tmp_path / "out").exists()


# ---- the command line


def typed(capsys, asked, *args):
    "Exit code and JSON of `cantolyric write --endpoint`."
    from cantolyric.cli.main import main

    code = main(
        [
            "write",
            "--topic",
            "夜雨",
            "--tones",
            "22/33",
            "-n",
            "1",
            "--endpoint",
            asked.url,
            "--model",
            "some-model",
            "--json",
            *args,
        ]
    )
    return code, json.loads(capsys.readouterr().out)


def test_the_command_writes_through_an_endpoint(capsys, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    with playing(said("夜夜\n夜詩"), said("夜夜\n詩史")) as asked:
        code, data = typed(capsys, asked, "--seed", "5", "--key-env", "SOME_KEY")
    assert code == 0 and data["candidates"][0]["text"] == "夜夜\n詩史" and data["candidates"][0]["faults"] == 0
    assert data["usage"] == dict(requests=2, input=20, output=10, reported=True) and data["cost"] is None
    assert [b["seed"] for b in asked.bodies] == [5, 6] and asked.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_the_command_says_no_where_faults_are_left(capsys):
    with playing(said("夜夜\n夜詩")) as asked:
        code, data = typed(capsys, asked, "--rounds", "2")
        assert code == 1 and data["candidates"][0]["faults"] == 1 and len(asked.bodies) == 3
        typed(capsys, asked, "--budget", "16", "--repair", "fresh")  # 15 tokens an answer: the second one is over it
    assert len(asked.bodies) == 5 and len(asked.bodies[-1]["messages"]) == len(asked.bodies[-2]["messages"])
