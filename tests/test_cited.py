"""Figures from elsewhere: they agree with each other, with the library's table, and with what the lessons say."""

import json
import re
from pathlib import Path

from cantolyric.melody.tones import table_distance

ROOT = Path(__file__).resolve().parent.parent
MELODY = json.loads((ROOT / "benchmarks/results/cited.json").read_text(encoding="utf-8"))["melody"]
DIRECTION, TABLE = MELODY["direction"], MELODY["table"]


def test_directions_add_up():
    shares = [DIRECTION[k] for k in ("same", "holds", "opposes")]
    assert abs(sum(shares) - 1) < 0.001  # three rounded shares
    changing = DIRECTION["pairs_whose_class_changes"]
    assert round(DIRECTION["oppositions"] / changing, 4) == DIRECTION["opposes"]
    assert changing < MELODY["pairs"]
    ending_low = sum(DIRECTION["oppositions_by_classes"].values())
    assert abs(ending_low / DIRECTION["oppositions"] - 0.5) < 0.01


def test_the_rule_admits_what_does_not_hold_or_oppose():
    refused = (DIRECTION["holds"] + DIRECTION["opposes"]) * DIRECTION["pairs_whose_class_changes"]
    assert round(1 - refused / MELODY["pairs"], 3) == MELODY["rule"]["admitted"]
    for rule in ("rule", "rule_with_sizes"):
        assert 0 < MELODY[rule]["admitted"] < 1 <= MELODY[rule]["classes_per_note"] <= 4


def test_the_share_inside_the_table_is_an_average_of_its_parts():
    inside = TABLE["inside"]
    same = 1 - DIRECTION["pairs_whose_class_changes"] / MELODY["pairs"]
    one, more = inside["one level apart"], inside["two or three levels apart"]
    weight = (inside["all"] - same * inside["same class"] - (1 - same) * more) / (one - more)
    assert 0 < weight < 1 - same  # the share of pairs one level apart


def test_the_table_is_that_of_the_library():
    for pair, text in TABLE["semitones_upwards"].items():
        sizes = [int(n) for n in re.findall(r"\d+", text)]
        inside = {k for k in range(1, 25) if not table_distance(*pair, k)}
        assert inside == ({k for k in range(1, 25) if k >= sizes[0]} if "more" in text else set(sizes)), pair
    for row in TABLE["one_level_apart"]:
        assert [table_distance(*row["classes"], k) for k in row["semitones"]] == [0, 0]


def test_lesson_03_quotes_these_figures():
    cells = json.loads((ROOT / "nbs/03_melody.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    percent = lambda x: f"{100 * x:.2f}".rstrip("0").rstrip(".") + " %"
    inside = TABLE["inside"]
    quoted = [percent(x) for x in (*inside.values(), DIRECTION["same"], DIRECTION["opposes"], DIRECTION["holds"])]
    quoted += [percent(MELODY["rule"]["admitted"]), f"{MELODY['rule']['classes_per_note']} of 4 classes"]
    quoted += [f"{MELODY['pairs']:,}", f"{DIRECTION['pairs_whose_class_changes']:,}", f"{MELODY['songs']} "]
    quoted += [f"{DIRECTION['oppositions']} opposing pairs", percent(TABLE["same_class_moves"]["3"]["falls"])]
    assert [x for x in quoted if x not in text] == []
