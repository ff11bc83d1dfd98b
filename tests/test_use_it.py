'"Use it" of every chapter, run literally: it shows a use that works, and leaves a reader\'s files as they were.'

import csv
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from scalable_arch.data import load_scenes, render_dataset

root = Path(__file__).parents[1]
chapters = sorted(path.stem for path in (root / "nbs").glob("ch*.ipynb"))


def section(chapter):
    'The text and the code cells of "Use it".'
    cells = nbformat.read(root / f"nbs/{chapter}.ipynb", as_version=4).cells
    start = next(number for number, cell in enumerate(cells) if re.match(r"## \d+\. Use it", cell.source))
    return cells[start].source, [cell.source for cell in cells[start:] if cell.cell_type == "code"]


def run(cells, folder):
    "What the cells print, run one after the other in a Python of its own, in `folder`."
    ran = subprocess.run(
        [sys.executable, "-c", "\n\n".join(cells)],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "agg", "TMPDIR": str(folder / "tmp")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    # by the names that tempfile gives; torch leaves a cache of its own
    assert not list((folder / "tmp").glob("tmp*")), "made-up data and results go when Python ends"
    return ran.stdout


def hashes(folder):
    "Names and contents of all files in `folder`, whatever lies in its `tmp` aside."
    files = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "tmp"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def place(tmp_path):
    "An empty folder with one for temporary files in it."
    (tmp_path / "tmp").mkdir()
    return tmp_path


def finds_people(said):
    "Chapter 3: the trained network ranks people it never saw better than the untrained one."
    untrained, trained = (float(mAP) for mAP in re.findall(r"trained: .*?mAP ([\d.]+)%", said))
    assert trained > untrained + 5


def detects_people(said):
    "Chapter 4: most people of the frames are found, and similarities tell people apart."
    found, people = map(int, re.search(r"(\d+) of (\d+) people found", said).groups())
    similarities = set(re.findall(r"similarity ([\d.-]+)", said))
    first, asked = re.search(r"person (\d+); asked for: (\d+)", said).groups()
    assert found > 0.7 * people and len(similarities) > 1 and first == asked


def names_digits(said):
    "Chapters 5 and 6: the network of the cells found names new digits well above chance, also read from its file."
    found, again = (int(re.search(rf"{what}: (\d+)%", said)[1]) for what in ("found cells", "read again"))
    assert found == again > 50


def keeps_what_it_learnt(said):
    "Chapter 9: the network read from its file finds what the trained one does."
    trained, again = (re.search(rf"^{what}: +(.*)", said, re.M)[1] for what in ("trained", "read again"))
    assert trained == again


def groups_pictures(said):
    "Chapters 10 and 11: pictures fall into several groups."
    assert int(re.search(r"(\d+) groups", said)[1]) > 2


def makes_a_network_smaller(said):
    "Chapter 13: half of the multiply-adds and less, and digits are still named well above chance."
    (before, _), (after, right) = re.findall(r"([\d.]+) M multiply-adds.*?(\d+)% of", said)
    assert float(after) <= 0.5 * float(before) + 0.05 and int(right) > 50


works = {"ch3_han": finds_people, "ch4_hdl": detects_people, "ch5_nge": names_digits, "ch6_nos": names_digits}
works |= {"ch7_cdnet": finds_people, "ch8_msinet": finds_people, "ch9_video": keeps_what_it_learnt}
works |= {"ch10_sgc": groups_pictures, "ch11_hsr": groups_pictures, "ch13_caie": makes_a_network_smaller}


@pytest.mark.parametrize("chapter", chapters)
def test_use_it_in_an_empty_folder_shows_a_use_that_works(chapter, place):
    _, cells = section(chapter)
    works[chapter](run(cells, place))
    assert not hashes(place), "nothing is written where nobody said so"


def people_of_ones_own(folder):
    "Six people in two or more cameras, and files of the names that the chapter uses."
    render_dataset("market1501", folder / "rendered", num_train_ids=6, num_test_ids=2)
    (folder / "rendered/bounding_box_train").rename(folder / "my_people")
    for name in ("mine.safetensors", "notes.txt"):
        (folder / "my_people" / name).write_text("the reader's own")


def frames_of_ones_own(folder, who):
    "Five frames with boxes of people, with and without who they are, and files of the names that the chapter uses."
    own, drawn = folder / "my_frames", load_scenes("train", people=6, scenes=5, cameras=2, size=(192, 256))
    own.mkdir()
    with open(own / "boxes.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["frame", *["person"][:who], "x1", "y1", "x2", "y2"])
        for number, (boxes, persons) in enumerate(zip(drawn.boxes, drawn.pids)):
            Image.fromarray(drawn.image(number).permute(1, 2, 0).numpy()).save(own / f"walk_{number}.png")
            for person, box in zip(persons.tolist(), boxes.tolist()):
                table.writerow([f"walk_{number}.png", *[person][:who], *box])
    for name in ("mine.safetensors", "frame_000.png"):
        (own / name).write_text("the reader's own")


def lines_of_ones_own(text):
    "The lines that the section's text gives for a folder of one's own."
    return re.search(r"```python\n(.*?)```", text, re.S)[1]


@pytest.mark.parametrize("only_that_line", [False, True])
@pytest.mark.parametrize(
    "chapter, made",
    [
        ("ch3_han", people_of_ones_own),
        ("ch4_hdl", lambda folder: frames_of_ones_own(folder, True)),
        ("ch4_hdl", lambda folder: frames_of_ones_own(folder, False)),
        ("ch7_cdnet", people_of_ones_own),
        ("ch8_msinet", people_of_ones_own),
    ],
    ids=["people", "frames", "frames-of-nobody", "people-searched", "interactions-searched"],
)
def test_use_it_leaves_a_folder_of_ones_own_as_it_was(chapter, made, only_that_line, place):
    made(place)
    before = hashes(place)
    text, (first, *others) = section(chapter)
    lines = lines_of_ones_own(text)
    own = re.search(r'^folder = Path\("my_\w+"\)$', lines, re.M)[0]
    first, changed = re.subn(r"^folder = .*$", own, first, flags=re.M) if only_that_line else (lines, 1)
    assert changed == 1
    # a folder of one's own needs no learning here, only that all cells run
    run([first, *[re.sub(r"epochs=\d+", "epochs=1", cell) for cell in others]], place)
    assert hashes(place) == before


@pytest.mark.parametrize("chapter", ["ch5_nge", "ch6_nos"])
def test_use_it_touches_no_file_beside_it(chapter, place):
    for name in ("mine.safetensors", "mine.pt2", "found.safetensors", "search/checkpoint.json"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("the reader's own")
    before = hashes(place)
    _, cells = section(chapter)
    run([re.sub(r"epochs=\d+", "epochs=1", cell) for cell in cells], place)
    assert hashes(place) == before


@pytest.mark.parametrize("chapter", chapters)
def test_no_shown_code_deletes(chapter):
    _, cells = section(chapter)
    assert not re.search(r"rmtree|unlink|\.remove\(|os\.remove|rmdir|mkdtemp", "\n".join(cells))
