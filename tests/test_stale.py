"""What is stale after which edit: none of the cosmetic ones makes anything stale, each of the real ones exactly what
rests on it; what the ledger can mend without training it mends, and what it cannot stays stale."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from scalable_arch.kinds import KINDS
from scalable_arch.study import claims, printed
from scalable_arch.study.claims import claims_in
from scalable_arch.study.ledger import ledger, value_counts, write_ledger
from scalable_arch.study.record import read_jsonl, read_trials, write_jsonl, write_trials
from scalable_arch.study.reports import Report
from scalable_arch.study.tables import Study
from scalable_arch.study.trials import family, stale_sentence
from scalable_arch.versions import VERSIONS, outdated, versions_of

ROOT = Path(__file__).parents[1]
CHAPTERS = ("ch3_han", "ch4_hdl", "ch5_nge", "ch6_nos")
PARTS, COSTS = "wei_li_thesis_t3_03", "wei_li_thesis_t3_07"


def versions_now(record):
    "The versions that a trial of this configuration would note now: what is tested here is not how old the record is."
    return versions_of(KINDS[record["config"]["kind"]].versions(record["config"]))


def made_now(folder):
    "Let the trials in a copied folder be as if they were made now."
    write_trials(folder, [record | {"versions": versions_now(record)} for record in read_trials(folder).values()])


@pytest.fixture(scope="module")
def committed():
    "All trials on record, as if they were made now."
    found = {name: record for chapter in CHAPTERS for name, record in read_trials(ROOT / "reports" / chapter).items()}
    return {name: record | {"versions": versions_now(record)} for name, record in found.items()}


def full_hans(trials):
    "The trials of the full HAN on the plaza, whose parts were searched with: a seed each."
    found = [
        record
        for record in trials.values()
        if record["config"]["model"] == "han_large"
        and record["config"]["train"].get("world") == "plaza"
        and {"global", "local"} <= set(record["config"].get("parts", ()))
        and record["config"]["recipe"].get("loss", "cross_entropy") == "cross_entropy"
        and not record["config"]["recipe"].get("erasing")
    ]
    families = Counter(family(record["config"]) for record in found)
    ours = [record for record in found if family(record["config"]) == families.most_common(1)[0][0]]
    return sorted(ours, key=lambda record: record["config"]["seed"])


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    "Chapter 3's trials as committed, with two studies that rest on them and on the cost of a HAN."
    root = tmp_path_factory.mktemp("reports")
    shutil.copytree(
        ROOT / "reports" / "ch3_han", root / "ch3_han", ignore=shutil.ignore_patterns("*.ipynb", "studies*")
    )
    made_now(root / "ch3_han")
    report, records = Report("ch3_han", "desk", root=root), full_hans(read_trials(root / "ch3_han"))
    study = Study(PARTS, report, data={"Market-1501": "plaza"})
    for row, part in {"Global+Local": "joint", "Global": "global", "Local": "local"}.items():
        study.searched(records, part=part, row=row, dataset="Market-1501")
    study.show()
    study = Study(COSTS, report, data={"Market-1501": "plaza"}, versions=["model.han"])
    for row, value in {"Depthwise": 708.6e6, "Inception": 1088e6, "Residual": 1343e6}.items():
        study.structural(value, row=row, metric="FLOPs", tolerance=0.015)
    study.show()
    return root


@pytest.fixture
def reports(shown, tmp_path):
    shutil.copytree(shown, tmp_path / "reports")
    return tmp_path / "reports"


@pytest.fixture
def manifests(monkeypatch, tmp_path):
    "A copy of the printed values and claims that a test may edit."
    folder = tmp_path / "data_manifests"
    shutil.copytree(ROOT / "data_manifests", folder)
    for module in (printed, claims):
        monkeypatch.setattr(module, "manifest_dir", lambda: folder / "datasets")
    caches = (printed.index_sheet, printed.figure_sheet, claims_in)
    for cache in caches:
        cache.cache_clear()
    yield folder
    for cache in caches:
        cache.cache_clear()


def stale(found):
    "{study: what has changed} of the tables that are stale; those that print the same values again are left out."
    return {entry["id"]: entry["stale"] for entry in found["entries"] if entry["stale"] and entry["own"]}


def study(found, name):
    return next(entry for entry in found["entries"] if entry["id"] == name)


def replace_once(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old!r}: choose another edit"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


# ---- edits of the code ----

SAYS = """
import json, sys
from pathlib import Path
import scalable_arch
from scalable_arch.study.ledger import ledger
from scalable_arch.study.record import read_trials
from scalable_arch.study.trials import stale_sentence
reports = Path(sys.argv[1])
records = [record for path in sorted(reports.glob("ch*")) for record in read_trials(path).values()]
print(json.dumps([scalable_arch.__file__, len(records), stale_sentence(records), ledger(reports)["totals"]["stale"]]))
"""


def one_line_joined(library):
    "Two lines of a call in the simulated world, laid out as one."
    for path in sorted((library / "data").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "world" in text and (hit := re.search(r"\((\n\s+)(\S[^\n#]*[^\n,(\[{#])(\n\s+)\)", text)):
            path.write_text(text[: hit.start(1)] + hit[2] + text[hit.end(3) :], encoding="utf-8")
            return
    raise AssertionError("there is no such call: choose another edit")


def bar_reworded(library):
    changed = [path for path in (library / "train").glob("*.py") if "desc=" in path.read_text(encoding="utf-8")]
    for path in changed:
        path.write_text(
            re.sub(r"\bdesc=([^,\n]+)", r'desc=f"now {\1}"', path.read_text(encoding="utf-8")), encoding="utf-8"
        )
    assert changed, "no training shows a bar: choose another edit"


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    "A copy of the library after all cosmetic edits of the issue."
    root = tmp_path_factory.mktemp("edited")
    shutil.copytree(ROOT / "scalable_arch", root / "scalable_arch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data_manifests", root / "data_manifests")
    shutil.copy(ROOT / "settings.ini", root)
    library = root / "scalable_arch"
    for name, more in (("data/images.py", "\n\ndef unused():\n    return 3\n"), ("errors.py", "\nUNUSED = 3\n")):
        with open(library / name, "a", encoding="utf-8") as file:
            file.write(more)
    one_line_joined(library)
    bar_reworded(library)
    for path in library.rglob("*.py"):
        compile(path.read_text(encoding="utf-8"), path, "exec")
    return root


def said_by(root, reports):
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", SAYS, str(reports)], env=env, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    place, number, sentence, tables = json.loads(done.stdout)
    assert Path(place).is_relative_to(root)
    return number, sentence, tables


def test_cosmetic_edits_make_nothing_stale_and_a_raised_version_does(edited, reports):
    for chapter in CHAPTERS[1:]:
        shutil.copytree(
            ROOT / "reports" / chapter, reports / chapter, ignore=shutil.ignore_patterns("*.ipynb", "studies*")
        )
        made_now(reports / chapter)
    number, sentence, tables = said_by(edited, reports)
    assert number > 300 and (sentence, tables) == ("", 0)
    now = VERSIONS["model.han"]
    replace_once(edited / "scalable_arch" / "versions.py", f'"model.han": {now}', f'"model.han": {now + 1}')
    number, sentence, tables = said_by(edited, reports)
    raised = rf"model.han {now + 1} \(made with {now}\)"
    assert re.fullmatch(rf"\d+ of \d+ trials on record are stale: {raised} since they were made", sentence)
    assert tables >= 2


# ---- raised versions ----


def raise_version(monkeypatch, name):
    "Raise a version by one; what a study made before says of it."
    now = VERSIONS[name]
    monkeypatch.setitem(VERSIONS, name, now + 1)
    return f"{name} {now + 1} (made with {now})"


def of_kind(*kinds):
    return lambda config: config["kind"] in kinds


def naming(text):
    "Whether a configuration has a text anywhere."
    return lambda config: text in json.dumps(config)


@pytest.mark.parametrize(
    "raised, rests_on_it",
    [
        ("loss.triplet", lambda config: config["kind"] == "reid" and "triplet" in config["recipe"].get("loss", "")),
        ("world.plaza", naming('"world": "plaza"')),
        ("world.mixed", naming('"mixed": true')),
        (
            "world.classes",
            lambda config: config["kind"] in ("classification", "search") and "shots" in json.dumps(config),
        ),
        ("kind.reid", of_kind("reid")),
        ("kind.segmentation", of_kind("segmentation")),
        ("score.retrieval", of_kind("reid")),
        ("score.reranking", lambda config: any("RR" in part for part in config.get("parts", ()))),
        ("model.hdl", of_kind("person_search")),
        ("recipe.search", of_kind("search")),
    ],
)
def test_a_raised_version_makes_exactly_those_trials_stale_that_rest_on_it(raised, rests_on_it, committed, monkeypatch):
    assert stale_sentence(list(committed.values())) == ""
    monkeypatch.setitem(VERSIONS, raised, VERSIONS[raised] + 1)
    found = {name for name, record in committed.items() if outdated(record["versions"])}
    assert found == {name for name, record in committed.items() if rests_on_it(record["config"])}
    assert 0 < len(found) < len(committed)
    assert stale_sentence(list(committed.values())).startswith(f"{len(found)} of {len(committed)} trials on record")


def test_a_raised_version_of_trials_shows_in_their_tables_and_no_ledger_mends_it(reports, monkeypatch):
    assert stale(ledger(reports)) == {}
    words = raise_version(monkeypatch, "world.plaza")
    for found in (ledger(reports), write_ledger(reports)):
        assert stale(found) == {PARTS: [words]} and found["totals"]["stale"] == 1
    text = (reports / "ledger.md").read_text(encoding="utf-8")
    assert f"changed since: {words}" in text


def test_structural_values_of_an_older_method_are_not_made_young_by_the_ledger(reports, monkeypatch):
    words = raise_version(monkeypatch, "model.han")
    for found in (ledger(reports), write_ledger(reports), ledger(reports)):
        assert stale(found)[COSTS] == [words]


def test_another_rule_makes_all_studies_stale_and_the_ledger_mends_them(reports, monkeypatch):
    words = [raise_version(monkeypatch, "claims.rule")]
    assert stale(ledger(reports)) == {PARTS: words, COSTS: words}
    before = (reports / "ch3_han" / "trials.jsonl").read_bytes()
    assert stale(write_ledger(reports)) == {} == stale(ledger(reports))
    assert (reports / "ch3_han" / "trials.jsonl").read_bytes() == before


def test_a_study_of_the_former_rule_is_read_and_tested_again(reports):
    path = reports / "ch3_han" / "studies.jsonl"
    lines, wanted = read_jsonl(path), path.read_bytes()
    for line in lines:
        if "about" in line:
            line["about"]["versions"] |= {"claims.bootstrap": 1}
            del line["about"]["versions"]["claims.rule"]
        if "claim" in line:
            entries = [{"relation": "[a] > [b]", "metric": "R1", "dataset": "", "verdict": "not run"}]
            named = {name: line["claim"][name] for name in ("name", "text", "source")}
            line["claim"] = named | {"margin": None, "verdict": "fails", "in_paper": "holds"}
            line["claim"] |= {"relations": entries, "printed": entries}
        if "cell" in line and line["cell"]["ours"]["kind"] == "structural":
            del line["cell"]["ours"]["transcribed"]
            line["cell"]["verdict"] = "exact"
    write_jsonl(path, lines)
    found = ledger(reports)
    assert set(stale(found)) == {PARTS, COSTS} and study(found, COSTS)["claims"] == []
    assert found["totals"]["values"] == {} and not found["problems"]
    assert stale(write_ledger(reports)) == {} and path.read_bytes() == wanted


def test_trials_that_are_gone_are_said(reports):
    lines = (reports / "ch3_han" / "trials.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    mine = full_hans(read_trials(reports / "ch3_han"))[0]["trial"]
    text = "".join(line for line in lines if not line.startswith(f'{{"trial": "{mine}"'))
    (reports / "ch3_han" / "trials.jsonl").write_text(text, encoding="utf-8")
    assert stale(write_ledger(reports)) == {PARTS: ["1 of its trials are gone"]}


# ---- claims and printed values ----


def test_a_relation_turned_round_is_stale_until_the_ledger_tests_it_again(reports, manifests):
    before = ledger(reports)
    verdict = lambda found: {claim["name"]: claim["verdict"] for claim in study(found, COSTS)["claims"]}
    paper = lambda found: {claim["name"]: claim["in_paper"] for claim in study(found, COSTS)["claims"]}
    assert verdict(before)["depthwise cheapest"] == "supported" and stale(before) == {}
    path = manifests / "claims" / "wei_li_thesis_ch3.toml"
    text = path.read_text(encoding="utf-8")
    start = text.index('name = "depthwise cheapest"')
    head, relations = text[:start], text[start:]
    swapped = re.sub(
        "relations = .*", lambda found: found[0].translate({ord("<"): ">", ord(">"): "<"}), relations, count=1
    )
    path.write_text(head + swapped, encoding="utf-8")
    found = ledger(reports)
    assert stale(found) == {COSTS: ["other claims"]} and verdict(found)["depthwise cheapest"] == "supported"
    mended = write_ledger(reports)
    assert stale(mended) == {} and verdict(mended)["depthwise cheapest"] == "contradicted"
    assert paper(before)["depthwise cheapest"] == "supported"
    assert paper(mended)["depthwise cheapest"] == "contradicted"


def test_a_changed_printed_value_is_stale_until_the_ledger_tests_it_again(reports, manifests):
    before = ledger(reports)
    replace_once(manifests / "printed" / f"{COSTS}.csv", "Depthwise,,,FLOPs,7.01e8,", "Depthwise,,,FLOPs,9.01e8,")
    found = ledger(reports)
    assert stale(found) == {COSTS: ["other printed values"]}
    mended = write_ledger(reports)
    assert stale(mended) == {}
    assert value_counts([study(before, COSTS)]) == {"met": 2, "within": 1}
    assert value_counts([study(mended, COSTS)]) == {"met": 2, "not met": 1}


def test_a_ledger_of_what_has_not_changed_changes_nothing(reports):
    path = reports / "ch3_han" / "studies.jsonl"
    before = path.read_bytes()
    write_ledger(reports)
    assert path.read_bytes() == before
