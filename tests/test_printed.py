"""The printed values: their number, shape and ranges, and one sentence where a file is wrong."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_arch.data.manifests import manifest_dir
from scalable_arch.study import printed

SOURCES = {"wei_li_thesis": 26, "han_ijcv": 12, "cdnet_supp": 5, "liu_thesis": 38, "msinet_report": 2}


@pytest.fixture
def copy_of_sheets(tmp_path, monkeypatch):
    "A folder of printed values that a test may spoil."
    folder = tmp_path / "printed"
    shutil.copytree(manifest_dir().parent / "printed", folder)
    monkeypatch.setattr(printed, "manifest_dir", lambda: tmp_path / "datasets")
    printed.index_sheet.cache_clear()
    printed.figure_sheet.cache_clear()
    yield folder
    printed.index_sheet.cache_clear()
    printed.figure_sheet.cache_clear()


def test_all_tables_and_values_are_there():
    index = printed.printed_index()
    assert index.source.value_counts().to_dict() == SOURCES and index.n_values.sum() == 3082
    files = {path.stem for path in (manifest_dir().parent / "printed").glob("*.csv")}
    assert files == {*index.table, "INDEX", "figures", "spot_check"}


PINNED = Path(__file__).with_name("printed.json")
PIN = """
import json
from test_printed import PINNED, pinned_values
PINNED.write_text(json.dumps(pinned_values(), indent=1) + "\\n", encoding="utf-8")
"""  # run in tests/ after a printed value was corrected by the source's page, and read the difference


def pinned_values():
    "{table: number of values, and a checksum over what each is of, value, bound and unit}, and the same of all."
    columns = ["row", "group", "dataset", "metric", "value", "bound", "unit"]
    lines = {name: printed.read_sheet(name)[columns].values.tolist() for name in printed.list_printed()}
    mark = lambda lines: f"{len(lines)} {hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:12]}"
    return {"all": mark(sum(lines.values(), []))} | {name: mark(found) for name, found in lines.items()}


def test_no_printed_value_has_changed():
    pinned, found = json.loads(PINNED.read_text(encoding="utf-8")), pinned_values()
    changed = [name for name in pinned | found if pinned.get(name) != found.get(name)]
    assert not changed, "compare them with the source's page; where that is right, pin them anew as PIN says"
    assert pinned["all"].startswith("3082 ") and len(pinned) == 84


@pytest.mark.parametrize(
    "old, new, noticed",
    [
        ("88.9", "88.8", True),
        ("88.9", "88.90", True),
        ("percent", "count", True),
        (",true,", ",false,", False),
    ],
)
def test_any_changed_value_changes_its_checksum(copy_of_sheets, old, new, noticed):
    before, path = pinned_values(), copy_of_sheets / "wei_li_thesis_t3_03.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    changed = [name for name, found in pinned_values().items() if found != before[name]]
    assert changed == (["all", "wei_li_thesis_t3_03"] if noticed else [])


@pytest.mark.parametrize("name", printed.list_printed())
def test_table_is_sound(name):
    printed.check_printed(name)
    table = printed.printed_table(name)
    costs = table[table.unit.isin(["FLOPs", "M"])]
    assert (costs.convention != "").all(), "every cost names the convention that fits it"
    assert printed.structural(table).sum() == (~table.convention.isin(["", "as reported"])).sum()


def test_figures():
    figures = printed.printed_figures()
    assert figures.figure.is_unique and {"wei_li_thesis_f3_06", "han_ijcv_f07", "liu_thesis_f5_03"} <= set(
        figures.figure
    )
    assert set(figures.same_as) - {""} <= set(figures.figure)


def test_journal_and_thesis_differ_in_two_marks_only():
    index = printed.printed_index()
    pairs = index[index.same_as != ""]
    assert len(pairs) == 12
    differences = pd.concat([printed.same_values(row.same_as, row.table) for row in pairs.itertuples()])
    assert set(differences.row) == {"gcs", "sggnn"} and len(differences) == 12


def test_misprints_keep_their_value_and_say_why():
    table = printed.printed_table("wei_li_thesis_t3_09")
    copied = table[(table.row == "RW") & (table.metric == "mAP")]
    assert copied.value.tolist() == [82.5] and "H21" in copied.flag.iloc[0]


@pytest.mark.parametrize(
    "name, value, read",
    [
        ("liu_thesis_t2_08", 2.4520e10, "24.320"),
        ("liu_thesis_t6_01", 66.28, "6.28"),
        ("liu_thesis_t7_01", 77.77, "TT.TT"),
        ("liu_thesis_t8_03", 35.1, "55.1"),
    ],
)
def test_what_damaged_text_reads_is_told(name, value, read):
    table = printed.printed_table(name)
    assert read in table[table.value == value].flag.iloc[0]


def test_spot_check_is_of_values_that_stand_there():
    spot = printed.read_sheet("spot_check")
    assert len(spot) == 200 and set(spot.table) == set(printed.list_printed())
    for name, lines in spot.groupby("table"):
        table = printed.read_sheet(name)
        merged = lines.merge(table, on=["row", "group", "dataset", "metric"], suffixes=("", "_there"))
        assert (
            len(merged) == len(lines)
            and (merged.value == merged.value_there).all()
            and (merged.found == merged.value).all()
        )
    assert spot.line.astype(int).gt(0).all()


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("row,group", "row,gruop", "must have the columns row, group"),
        ("percent", "per cent", "unknown unit in wei_li_thesis_t3_03.csv, line 2"),
        ("88.9", "888.9", "line 2: 888.9 percent is not between 0 and 100"),
        ("88.9", "eighty", "line 2: the value is no number"),
        (",true,", ",yes,", "unknown mark of the source's own results"),
        ("Local,", "Global,", "two values for Global"),
    ],
)
def test_a_spoiled_table_is_named_in_one_sentence(copy_of_sheets, old, new, words):
    path = copy_of_sheets / "wei_li_thesis_t3_03.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=words) as stop:
        printed.check_printed("wei_li_thesis_t3_03")
    assert "\n" not in str(stop.value)


def test_an_index_with_a_wrong_header_is_named(copy_of_sheets):
    path = copy_of_sheets / "INDEX.csv"
    path.write_text(path.read_text().replace("n_values", "number_of_values", 1))
    with pytest.raises(ValueError, match=r"INDEX.csv must have the columns table, source, .* not table"):
        printed.list_printed()


def test_a_lost_line_is_noticed(copy_of_sheets):
    path = copy_of_sheets / "wei_li_thesis_t3_03.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ValueError, match="has 11 values, and INDEX.csv says 12"):
        printed.check_printed("wei_li_thesis_t3_03")


@given(
    name=st.sampled_from(printed.list_printed()),
    place=st.integers(0, 10**6),
    spoil=st.sampled_from(["lost", "doubled", "eight", "inf", "-1"]),
)
def test_any_spoiled_line_of_any_table_is_noticed(name, place, spoil):
    printed.index_sheet()  # read before the reading is spoiled
    spoiled = printed.read_sheet(name)
    line, other = place % len(spoiled), (place + 1) % len(spoiled)
    if spoil == "lost":
        spoiled = spoiled.drop(index=line).reset_index(drop=True)
    elif spoil == "doubled":
        spoiled.loc[other] = spoiled.loc[line]
    else:
        spoiled.loc[line, "value"] = spoil
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(printed, "read_sheet", lambda wanted: spoiled)
        with pytest.raises(ValueError, match=name):
            printed.check_printed(name)


def test_a_changed_value_is_the_one_difference(copy_of_sheets):
    path = copy_of_sheets / "han_ijcv_t09.csv"
    path.write_text(path.read_text().replace("86.3", "86.4", 1))
    different = printed.same_values("wei_li_thesis_t3_04", "han_ijcv_t09")
    assert different[["first", "second"]].values.tolist() == [[86.3, 86.4]]


def test_unknown_table_and_ambiguous_value():
    with pytest.raises(ValueError, match="names like it: .*wei_li_thesis_t3_1.*lists all 83"):
        printed.printed_table("wei_li_thesis_t3_1")
    with pytest.raises(ValueError, match="3 values of wei_li_thesis_t3_01 have"):
        printed.printed_value("wei_li_thesis_t3_01", metric="FLOPs")
