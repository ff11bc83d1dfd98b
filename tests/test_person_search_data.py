"""CUHK-SYSU and PRW on disk: what is written is read again, by the fields the real sets have, and what is wrong with a
copy is told in a sentence."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat

from scalable_arch.cli import main
from scalable_arch.data import load_manifest, load_scenes
from scalable_arch.data.person_search import (
    check_person_search,
    corners_of,
    load_person_search,
    mat_fault,
    overlap,
    render_person_search,
    search_names,
    whole_boxes,
    write_cuhk_sysu,
    write_prw,
)
from scalable_arch.data.readers import reader_names
from scalable_arch.data.scenes import SceneSearch, SceneSet

SIZE = (96, 128)
WRITERS = {"cuhk_sysu": write_cuhk_sysu, "prw": write_prw}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield (
        load_scenes(people=5, scenes=14, cameras=3, size=SIZE),
        load_scenes("test", people=5, scenes=12, cameras=2, size=SIZE),
    )
    patch.undo()


@pytest.fixture(scope="module")
def written(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for name, write in WRITERS.items():
        write(folder / name, *simulated)
    return folder


@pytest.fixture
def copy(written, tmp_path):
    """A copy of both sets that a test may damage."""
    shutil.copytree(written, tmp_path / "copy")
    return tmp_path / "copy"


def sentence(name, root, kind=ValueError, **options):
    """The one sentence that loading ends in."""
    with pytest.raises(kind) as caught:
        load_person_search(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path, change):
    """Apply `change` to the variables of a .mat file."""
    content = {key: value for key, value in loadmat(path).items() if key[0] != "_"}
    change(content)
    savemat(path, content)


# ---- written, and read again


@pytest.mark.parametrize("name", list(WRITERS))
def test_what_is_written_is_read(name, simulated, written):
    (train, search), (read_train, read_search) = simulated, load_person_search(name, written / name, gallery_size=50)
    for before, after in ((train, read_train), (search.scenes, read_search.scenes)):
        assert len(before) == len(after) and (before.sizes == after.sizes).all()
        for k in range(len(before)):
            assert before.pids[k].tolist() == after.pids[k].tolist()
            assert after.boxes[k].dtype == torch.float32 and after.pids[k].dtype == torch.int64
            gap = (after.boxes[k] - before.boxes[k]) * torch.tensor([-1, -1, 1, 1])
            assert (gap >= 0).all() and (gap < 1).all()  # whole pixels around
        difference = (before.image(3).float() - after.image(3).float()).abs().mean()
        assert after.image(3).shape == before.image(3).shape and difference < 4  # JPEG
    assert read_search.protocol == name
    assert sorted(read_search.query_pids()) == (
        sorted(search.query_pids()) if name == "prw" else sorted(search.scenes.labels)
    )


def test_galleries_of_cuhk_sysu_begin_with_the_person(written):
    for size in (50, 4000):
        _, search = load_person_search("cuhk_sysu", written / "cuhk_sysu", gallery_size=size)
        for number, (scene, _) in enumerate(search.queries):
            gallery = search.gallery(number)
            has = [bool((search.scenes.pids[other] == search.query_pids()[number]).any()) for other in gallery]
            assert has == sorted(has, reverse=True) and any(has) and scene not in gallery and len(gallery) == 11
    _, full = load_person_search("cuhk_sysu", written / "cuhk_sysu", gallery_size=None)
    assert full.galleries is None and len(full.gallery(0)) == 11
    assert "choose one of: 50, 100" in sentence("cuhk_sysu", written / "cuhk_sysu", gallery_size=70)


def test_prw_keeps_cameras_and_searches_all_but_the_querys_frame(written, simulated):
    train, search = load_person_search("prw", written / "prw")
    assert (
        train.camids.tolist() == simulated[0].camids.tolist()
        and search.scenes.camids.tolist() == simulated[1].scenes.camids.tolist()
    )
    assert (
        search.galleries is None
        and len(search.gallery(0)) == len(search.scenes) - 1
        and search.queries[0, 0] not in search.gallery(0)
    )
    assert search.queries.tolist() == simulated[1].queries.tolist()


def test_cuhk_sysu_has_the_fields_of_the_real_one(written, simulated):
    """Read in the way of lib/datasets/psdb.py of ShuangLI59/person_search, by position and name."""
    home, lists = written / "cuhk_sysu" / "annotation", written / "cuhk_sysu" / "annotation" / "test" / "train_test"
    images = loadmat(home / "Images.mat")["Img"].squeeze()
    assert images.dtype.names == ("imname", "nAppear", "box") and len(images) == 26
    boxes = {}
    for imname, count, entries in images:
        assert entries.dtype.names == ("idlocate", "ishard") and entries.shape == (1, int(count[0, 0]))
        boxes[str(imname[0])] = [tuple(entry[0].squeeze().astype(int)) for entry in entries[0]]
        assert (written / "cuhk_sysu" / "Image" / "SSM" / str(imname[0])).is_file()
    pool = [str(cell[0]) for cell in loadmat(home / "pool.mat")["pool"].squeeze()]
    assert pool == [f"s{k}.jpg" for k in range(15, 27)]
    seen = 0
    for cell in loadmat(lists / "Train.mat")["Train"].squeeze():
        record = cell[0, 0]
        assert record.dtype.names == ("idname", "nAppear", "scene") and str(record["idname"][0])[0] == "p"
        for imname, located, _ in record["scene"].squeeze():
            seen += tuple(located.squeeze().astype(int)) in boxes[str(imname[0])]
    assert seen == sum(int((pids > 0).sum()) for pids in simulated[0].pids)
    assert {f"TestG{size}.mat" for size in load_manifest("cuhk_sysu")["scenes"]["gallery_sizes"]} | {"Train.mat"} == {
        path.name for path in lists.iterdir()
    }
    for record in loadmat(lists / "TestG100.mat")["TestG100"].squeeze():
        query, gallery = record["Query"][0, 0], record["Gallery"].squeeze()
        assert query.dtype.names == ("imname", "idlocate", "ishard", "idname") and gallery.dtype.names == (
            "imname",
            "idlocate",
            "ishard",
        )
        assert (
            tuple(query["idlocate"][0].astype(int)) in boxes[str(query["imname"][0])]
            and str(query["imname"][0]) in pool
        )
        assert all(entry["idlocate"][0].size in (0, 4) for entry in gallery)
    person = loadmat(home / "Person.mat")["Person"].squeeze()
    assert person.dtype.names == ("idname", "nAppear", "scene") and len(person) == 10


def test_prw_has_the_fields_of_the_real_one(written, simulated):
    """Read in the way of datasets/prw.py of serend1p1ty/SeqNet."""
    home = written / "prw"
    names = [row[0][0] for row in loadmat(home / "frame_train.mat")["img_index_train"]]
    assert names[0] == "c1s1_000001" and len(names) == 14 and (home / "frames" / f"{names[0]}.jpg").is_file()
    for name, pids in zip(names, simulated[0].pids):
        rows = loadmat(str(home / "annotations" / f"{name}.jpg"))["box_new"]
        assert rows.shape == (len(pids), 5) and [-1 if row == -2 else row for row in rows[:, 0]] == pids.tolist()
    assert loadmat(home / "ID_train.mat")["ID_train"].squeeze().tolist() == sorted(simulated[0].labels)
    assert loadmat(home / "ID_test.mat")["ID_test2"].squeeze().tolist() == sorted(simulated[1].scenes.labels)
    lines = (home / "query_info.txt").read_bytes().split(b"\r\n")
    assert len(lines) == len(simulated[1].queries) + 1 and len(lines[0].split(b" ")) == 6
    pid, x, y, width, height, frame = lines[0].decode().split()
    with Image.open(home / "query_box" / f"{pid}_{frame}.jpg") as crop:
        assert crop.size == (int(width), int(height))


@pytest.mark.parametrize("key", ["anno_file", "anno_previous"])
def test_all_three_names_of_prws_boxes_are_read(copy, key):
    before = load_person_search("prw", copy / "prw")[0].boxes[0]
    path = copy / "prw" / "annotations" / "c1s1_000001.jpg.mat"
    savemat(path, {key: loadmat(path)["box_new"]})
    assert torch.equal(load_person_search("prw", copy / "prw")[0].boxes[0], before)


def test_one_person_and_nobody_in_a_scene(tmp_path):
    """A struct array of one, and of none, comes back from a .mat file in another shape."""
    boxes = [torch.tensor([[2.0, 3, 10, 20]]), torch.zeros(0, 4), torch.tensor([[5.0, 3, 12, 24]])]
    pids = [torch.tensor([4]), torch.zeros(0, dtype=torch.int64), torch.tensor([4])]
    pixels = torch.full((3, 3, 30, 40), 90, dtype=torch.uint8)
    made = SceneSet(list("abc"), np.array([1, 1, 2]), boxes, pids, pixels, np.array([[30, 40]] * 3))
    for name, write in WRITERS.items():
        write(tmp_path / name, made, SceneSearch(made, np.array([[0, 0]])))
        train, search = load_person_search(name, tmp_path / name)
        for found in (train, search.scenes):
            assert [len(part) for part in found.boxes] == [1, 0, 1] and [part.tolist() for part in found.pids] == [
                [4],
                [],
                [4],
            ]
            assert found.boxes[1].shape == (0, 4) and torch.equal(found.boxes[2], boxes[2])
        assert len(search.queries) == 1 and check_person_search(name, tmp_path / name).ok


def test_a_person_whose_numbers_differ_a_little_or_are_new_is_found(copy):
    """Train.mat need not repeat Images.mat to the pixel."""
    path, root = copy / "cuhk_sysu/annotation/test/train_test/Train.mat", copy / "cuhk_sysu"
    before = load_person_search("cuhk_sysu", root)[0]
    rewrite(path, lambda content: content["Train"][0, 0][0, 0]["scene"][0, 0]["idlocate"].__iadd__(1))
    after = load_person_search("cuhk_sysu", root)[0]
    assert all(a.tolist() == b.tolist() for a, b in zip(before.pids, after.pids))
    far = np.array([[100.0, 70, 20, 20]])
    rewrite(
        path,
        lambda content: content["Train"][0, 0][0, 0]["scene"][0].__setitem__(
            0, (content["Train"][0, 0][0, 0]["scene"][0, 0]["imname"], far, 0)
        ),
    )
    added = load_person_search("cuhk_sysu", root)[0]
    scene = next(k for k in range(len(added)) if len(added.boxes[k]) > len(before.boxes[k]))
    assert added.boxes[scene][-1].tolist() == [100, 70, 120, 90] and added.pids[scene][-1] == 1
    assert (added.pids[scene][:-1] == torch.where(before.pids[scene] == 1, -1, before.pids[scene])).all()


# ---- boxes


def test_boxes_are_cut_at_the_edge_and_refused_outside():
    assert corners_of([-3, -2, 10, 12], (50, 60), "x").tolist() == [0, 0, 7, 10]
    assert corners_of(np.array([50, 40, 30, 30], np.uint8), (50, 60), "x").tolist() == [50, 40, 60, 50]
    assert corners_of(np.array([200, 40, 100, 30], np.uint8), (500, 600), "x").tolist() == [
        200,
        40,
        300,
        70,
    ]  # no overflow of a byte
    for box, words in (
        ([60, 0, 5, 5], "outside its image of 60 x 50"),
        ([0, -9, 5, 9], "outside"),
        ([4, 4, 0, 5], "no area"),
        ([4, 4, 5, -1], "no area"),
    ):
        with pytest.raises(ValueError, match=f"box 7 of s1.jpg .*{words}.*check=False"):
            corners_of(box, (50, 60), "box 7 of s1.jpg")
        assert corners_of(box, (50, 60), "x", check=False) is None
    for box in ([1, 2, 3], "abcd", [1, 2, np.nan, 4], [[1, 2, 3, 4, 5]]):
        with pytest.raises(ValueError, match="is not four numbers"):
            corners_of(box, (50, 60), "x", check=False)


def test_whole_boxes_and_overlap_by_hand():
    assert whole_boxes([[1.5, 2, 4.25, 8]]).tolist() == [[1, 2, 4, 6]] and whole_boxes(np.zeros((0, 4))).shape == (0, 4)
    assert overlap(np.array([0.0, 0, 4, 4]), np.array([2.0, 0, 6, 4])) == pytest.approx(1 / 3)
    assert overlap(np.array([0.0, 0, 4, 4]), np.array([5.0, 0, 6, 4])) == 0


def damage_prw(home, rows):
    savemat(home / "annotations" / "c2s1_000001.jpg.mat", {"box_new": np.array(rows, float)})


def test_impossible_boxes_of_prw_name_file_and_row(copy):
    home = copy / "prw"
    damage_prw(home, [[3, 5, 5, 20, 40], [-2, 300, 5, 20, 40]])
    told = sentence("prw", home)
    assert "c2s1_000001.jpg.mat, box 2 lies outside its image of 128 x 96" in told
    left = load_person_search("prw", home, check=False)[0]
    index = left.names.index("c2s1_000001.jpg")
    assert left.boxes[index].tolist() == [[5, 5, 25, 45]] and left.pids[index].tolist() == [3]
    damage_prw(home, [[3, 5, 5, 0, 40]])
    assert "c2s1_000001.jpg.mat, box 1 has no area" in sentence("prw", home)
    damage_prw(home, [[3, 5, 5, 40]])
    assert "rows of id, x, y, width, height" in sentence("prw", home)
    savemat(home / "annotations" / "c2s1_000001.jpg.mat", {"boxes": np.zeros((1, 5))})
    assert "does not hold box_new or anno_file or anno_previous, but boxes" in sentence("prw", home)
    damage_prw(home, np.zeros((0, 5)))
    assert load_person_search("prw", home)[0].boxes[index].shape == (0, 4)


def test_impossible_boxes_of_cuhk_sysu_name_file_entry_and_scene(copy):
    home, path = copy / "cuhk_sysu", copy / "cuhk_sysu/annotation/Images.mat"
    first = load_person_search("cuhk_sysu", home)[0].boxes[4]

    def put(box):
        def change(content):
            content["Img"][0, 4]["box"][0, 0]["idlocate"] = np.array([box], float)

        rewrite(path, change)

    put([500, 10, 20, 30])
    assert "Images.mat, entry 5 (s5.jpg), box 1 lies outside its image of 128 x 96" in sentence("cuhk_sysu", home)
    put([10, 10, 20, 0])
    assert "entry 5 (s5.jpg), box 1 has no area" in sentence("cuhk_sysu", home)
    assert len(load_person_search("cuhk_sysu", home, check=False)[0].boxes[4]) in (len(first) - 1, len(first))
    put([1, 2, 3])
    assert "entry 5 (s5.jpg), box 1 is not four numbers" in sentence("cuhk_sysu", home, check=False)


# ---- damaged copies


@pytest.mark.parametrize(
    "name, missing",
    [
        ("prw", "frames/c1s1_000002.jpg"),
        ("prw", "annotations/c1s2_000001.jpg.mat"),
        ("prw", "frame_test.mat"),
        ("prw", "query_info.txt"),
        ("cuhk_sysu", "Image/SSM/s4.jpg"),
        ("cuhk_sysu", "annotation/pool.mat"),
        ("cuhk_sysu", "annotation/test/train_test/TestG100.mat"),
        ("cuhk_sysu", "annotation/Images.mat"),
    ],
)
def test_a_missing_file_is_named(copy, name, missing):
    (copy / name / missing).unlink()
    told = sentence(name, copy / name, FileNotFoundError)
    assert missing.rpartition("/")[2] in told
    result = check_person_search(name, copy / name)
    assert not result.ok and result.problems[0] == told and "missing" in str(result)


@pytest.mark.parametrize(
    "name, file",
    [
        ("prw", "annotations/c1s1_000002.jpg.mat"),
        ("prw", "frame_train.mat"),
        ("cuhk_sysu", "annotation/Images.mat"),
        ("cuhk_sysu", "annotation/test/train_test/Train.mat"),
        ("prw", "frames/c1s1_000002.jpg"),
        ("cuhk_sysu", "Image/SSM/s20.jpg"),
    ],
)
@pytest.mark.parametrize("share", [0, 0.02, 0.6])
def test_a_file_cut_short_is_named(copy, name, file, share):
    path = copy / name / file
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    if path.suffix == ".jpg" and share == 0.6:  # the header is whole: told when the image is read
        train, search = load_person_search(name, copy / name)
        scenes = train if name == "prw" else search.scenes
        with pytest.raises(ValueError, match=f"{path.name} cannot be read as an image"):
            scenes.image(scenes.names.index(path.name))
        assert check_person_search(name, copy / name).ok
        assert "1 of 26 images cannot be used" in check_person_search(name, copy / name, decode=True).problems[0]
    else:
        assert path.name in sentence(name, copy / name)


def test_files_that_do_not_belong_together(copy):
    home, lists = copy / "cuhk_sysu", copy / "cuhk_sysu/annotation/test/train_test"
    pool = home / "annotation/pool.mat"
    whole = pool.read_bytes()
    rewrite(pool, lambda content: content["pool"][0].__setitem__(0, np.array(["s99.jpg"])))
    assert "pool.mat names s99.jpg, which" in sentence("cuhk_sysu", home)
    rewrite(pool, lambda content: content.update(pool=content["pool"][1:]))
    told = sentence("cuhk_sysu", home)
    assert "s15.jpg, which pool.mat does not list" in told
    pool.write_bytes(whole)
    train = (lists / "Train.mat").read_bytes()
    rewrite(
        lists / "Train.mat", lambda content: content["Train"][1, 0][0, 0].__setitem__("idname", np.array(["nobody"]))
    )
    assert "Train.mat, person 2 has the idname 'nobody'" in sentence("cuhk_sysu", home)
    (lists / "Train.mat").write_bytes(train)
    savemat(lists / "TestG100.mat", {"TestG100": np.arange(3)})
    assert "TestG100.mat, query 1 has no field 'Query'" in sentence("cuhk_sysu", home)


def test_queries_of_prw_that_ask_for_nothing(copy):
    path = copy / "prw" / "query_info.txt"
    first, *rest = path.read_text().splitlines()
    for wrong, words in (
        ("12 3 4", "line 1 of .*query_info.txt is not 'id x y width height frame'"),
        (first.replace("s2_", "s7_"), "frame_test.mat does not list"),
        (first.replace(first.split()[0], "77", 1), "asks for person 77 in .* no box has this person"),
    ):
        path.write_text("\n".join([wrong, *rest]))
        with pytest.raises(ValueError, match=words):
            load_person_search("prw", copy / "prw")


def test_folders_and_names(written, tmp_path):
    assert "there is no folder" in sentence("prw", tmp_path / "none", FileNotFoundError)
    assert "frames is missing" in sentence("prw", tmp_path, FileNotFoundError)
    assert "did you mean 'prw'" in sentence("prv", written)
    assert "never" not in search_names() and search_names() == ["cuhk_sysu", "prw"]
    assert "withdrawn in 2019; there is no reader" in sentence("dukemtmc_ps", written)
    inner = tmp_path / "data" / "PRW-v16.04.20"
    shutil.copytree(written / "prw", inner)
    assert len(load_person_search("prw", tmp_path / "data")[0]) == 14


# ---- lists that were cut, files that are not read


def test_a_list_of_queries_cut_short_is_told(copy):
    """A list that ends early reads as well as a whole one."""
    path = copy / "prw" / "query_info.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:2]))
    told = sentence("prw", copy / "prw")
    assert f"test has 2 queries where the rendered set has {len(lines)}" in told and "check=False" in told
    assert len(load_person_search("prw", copy / "prw", check=False)[1].queries) == 2
    assert f"2 queries where {len(lines)} are expected" in check_person_search("prw", copy / "prw").problems[0]
    path.write_text("")
    assert "test has 0 queries" in sentence("prw", copy / "prw")


@pytest.mark.parametrize(
    "name, file, key, words",
    [
        ("prw", "frame_train.mat", "img_index_train", "train has 13 scenes where the rendered set has 14"),
        ("prw", "frame_test.mat", "img_index_test", "frame_test.mat does not list"),
        ("cuhk_sysu", "annotation/pool.mat", "pool", "pool.mat does not list"),
        ("cuhk_sysu", "annotation/test/train_test/Train.mat", "Train", "train has 4 ids where the rendered set has 5"),
        ("cuhk_sysu", "annotation/test/train_test/TestG50.mat", "TestG50", "test has 4 queries where .* has 5"),
    ],
)
def test_every_list_is_counted(copy, name, file, key, words):
    def shorten(content):
        axis = int(np.argmax(content[key].shape))
        content[key] = np.delete(content[key], 0, axis)

    rewrite(copy / name / file, shorten)
    with pytest.raises(ValueError, match=words):
        load_person_search(name, copy / name, gallery_size=50)
    assert not check_person_search(name, copy / name).ok


LISTS = [(name, entry["file"]) for name in WRITERS for entry in load_manifest(name)["scenes"]["lists"]]


@pytest.mark.parametrize("name, file", LISTS)
@pytest.mark.parametrize("decode", [False, True])
def test_a_check_looks_at_every_file(copy, name, file, decode):
    path, key = (
        copy / name / file,
        {"ID_test": "ID_test2"}.get(file.rpartition("/")[2][:-4], file.rpartition("/")[2][:-4]),
    )
    data = path.read_bytes()
    other = path.with_name("other.mat")
    savemat(other, {"other": np.arange(9)})
    empty = path.with_name("empty.mat")
    savemat(empty, {key: np.zeros((1, 0))})
    for content, words in (
        (None, "missing"),
        (b"", path.name),
        (data[:100], path.name),
        (data[: len(data) // 2], path.name),
        (data[:-3], path.name),
        (other.read_bytes(), f"does not hold {key}"),
        (empty.read_bytes(), path.name),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        result = check_person_search(name, copy / name, decode=decode)
        assert not result.ok and any(words in problem and path.name in problem for problem in result.problems), words
        assert all("\n" not in problem for problem in result.problems)
    path.write_bytes(data)
    assert check_person_search(name, copy / name, decode=decode).ok


def test_a_list_with_fewer_queries_than_the_others_is_told(copy):
    path = copy / "cuhk_sysu/annotation/test/train_test/TestG4000.mat"
    rewrite(path, lambda content: content.update(TestG4000=content["TestG4000"][:, 1:]))
    (told,) = check_person_search("cuhk_sysu", copy / "cuhk_sysu").problems
    assert "TestG4000.mat lists 4 entries where 5 are expected" in told
    assert "test has 4 queries where the rendered set has 5" in sentence(
        "cuhk_sysu", copy / "cuhk_sysu", gallery_size=4000
    )


def test_decoding_unpacks_what_is_not_read(tmp_path):
    path, cells = tmp_path / "TestG4000.mat", np.empty((1, 5), object)
    cells[0, :] = [np.random.default_rng(k).random(20_000) for k in range(5)]
    savemat(path, {"TestG4000": cells}, do_compression=True)
    data = bytearray(path.read_bytes())
    assert mat_fault(path, "TestG4000", 5, decode=True) is None
    data[-200_000] ^= 255  # inside the packed numbers: lengths are right
    path.write_bytes(bytes(data))
    assert mat_fault(path, "TestG4000", 5) is None
    assert "TestG4000.mat is damaged" in mat_fault(path, "TestG4000", 5, decode=True)


def test_the_pictures_of_prws_queries_belong_to_a_copy(copy):
    shutil.rmtree(copy / "prw" / "query_box")
    assert "query_box is missing" in check_person_search("prw", copy / "prw").problems[0]
    assert len(load_person_search("prw", copy / "prw")[1].queries)  # reading does not take them


# ---- numbers that are no persons


@pytest.mark.parametrize("number", [1.5, -0.5, np.nan, np.inf, -np.inf, 1e300, 2.0**53])
def test_persons_of_prw_are_whole_numbers(copy, number):
    damage_prw(copy / "prw", [[3, 5, 5, 20, 40], [number, 30, 5, 20, 40]])
    for check in (True, False):
        told = sentence("prw", copy / "prw", check=check)
        assert f"c2s1_000001.jpg.mat, box 2 has the person {number:g}, which is no whole number" in told


def test_unknown_persons_stay_unknown(copy):
    damage_prw(copy / "prw", [[-2, 5, 5, 20, 40], [-1, 30, 5, 20, 40], [0, 60, 5, 20, 40], [932, 80, 5, 20, 40]])
    train = load_person_search("prw", copy / "prw", check=False)[0]
    assert train.pids[train.names.index("c2s1_000001.jpg")].tolist() == [-1, -1, 0, 932]


@pytest.mark.parametrize("number", ["1.2.3", "1.2.3e4", ".", "-", "1e999", "nan", "inf", "--4"])
@pytest.mark.parametrize("place", [1, 2, 3, 4])
def test_numbers_of_a_query_are_numbers(copy, number, place):
    path = copy / "prw" / "query_info.txt"
    first, *rest = path.read_text().splitlines()
    parts = first.split()
    path.write_text("\n".join([*rest, " ".join([*parts[:place], number, *parts[place + 1 :]])]))
    told = sentence("prw", copy / "prw")
    assert f"line {len(rest) + 1} of {path} is not 'id x y width height frame'" in told


def test_queries_of_persons_beyond_64_bits_are_named(copy):
    path = copy / "prw" / "query_info.txt"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([" ".join(["9" * 25, *first.split()[1:]]), *rest]))
    assert "line 1 of" in sentence("prw", copy / "prw")


def test_decimal_and_scientific_numbers_and_a_mark_are_read(copy):
    path = copy / "prw" / "query_info.txt"
    before = load_person_search("prw", copy / "prw")[1].queries.tolist()
    first, *rest = path.read_text().splitlines()
    pid, *box, frame = first.split()
    first = " ".join([pid, f"{box[0]}.", f"{box[1]}.0", f"{box[2]}e0", f"{float(box[3]):.3E}", frame])
    path.write_text("\n".join([first, "", *rest]), encoding="utf-8-sig")
    assert load_person_search("prw", copy / "prw")[1].queries.tolist() == before


@pytest.mark.parametrize("idname", ["p" + "9" * 30, "p1.5", "p", "person"])
def test_names_of_cuhk_sysu_are_a_letter_and_a_number_that_fits(copy, idname):
    lists = copy / "cuhk_sysu/annotation/test/train_test"
    whole = (lists / "Train.mat").read_bytes()
    rewrite(lists / "Train.mat", lambda content: content["Train"][0, 0][0, 0].__setitem__("idname", np.array([idname])))
    assert "Train.mat, person 1 has the idname" in sentence("cuhk_sysu", copy / "cuhk_sysu", check=False)
    (lists / "Train.mat").write_bytes(whole)
    rewrite(
        lists / "TestG100.mat",
        lambda content: content["TestG100"][0, 0]["Query"][0, 0].__setitem__("idname", np.array([idname])),
    )
    assert "TestG100.mat, query 1 has the idname" in sentence("cuhk_sysu", copy / "cuhk_sysu", check=False)


def test_scenes_are_read_as_they_are_stored(copy):
    """Boxes were drawn on the pixels as they lie in the file."""
    path = copy / "prw/frames/c1s1_000001.jpg"
    before = load_person_search("prw", copy / "prw")[0].image(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    segment = exif.tobytes()
    path.write_bytes(
        b"\xff\xd8\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + path.read_bytes()[2:]
    )  # the same pixels
    train = load_person_search("prw", copy / "prw")[0]
    assert torch.equal(train.image(0), before) and train.sizes[0].tolist() == list(before.shape[1:])


# ---- check and command line


def test_check_compares_with_what_was_written_and_with_what_is_published(copy):
    for name in WRITERS:
        result = check_person_search(name, copy / name, decode=True)
        assert result.ok and result.source == "rendered" and set(result.table.verdict) == {"ok"}
        (copy / name / "world.json").unlink()
        result = check_person_search(name, copy / name)
        assert not result.ok and result.source == "published"
        published = load_manifest(name)["expected"]
        assert result.table.expected.tolist() == [count for split in published.values() for count in split.values()]
        assert f"train: 14 scenes where {published['train']['scenes']:,} are expected" in result.problems[0]
    (copy / "prw" / "world.json").write_text(json.dumps(dict(name="cuhk_sysu", expected=dict(train={}, test={}))))
    assert "was written as cuhk_sysu" in check_person_search("prw", copy / "prw").problems[0]
    (copy / "prw" / "world.json").write_text("{")
    assert "world.json is damaged" in check_person_search("prw", copy / "prw").problems[0]


def test_command_line_renders_and_checks(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    for name in WRITERS:
        root = tmp_path / name
        assert (
            main(
                [
                    "data",
                    "render",
                    name,
                    "--out",
                    str(root),
                    "--ids",
                    "4",
                    "--scenes",
                    "5",
                    "--cameras",
                    "2",
                    "--height",
                    "66",
                ]
            )
            == 0
        )
        assert "5 scenes to train on and 2 to search in" in capsys.readouterr().out
        assert main(["data", "check", name, "--root", str(root), "--decode"]) == 0
        assert capsys.readouterr().out.rstrip().endswith("complete")
        assert main(["data", "render", name, "--out", str(root), "--ids", "4"]) == 2
        assert "not empty" in capsys.readouterr().err
    next((tmp_path / "prw" / "frames").iterdir()).unlink()
    assert main(["data", "check", "prw", "--root", str(tmp_path / "prw")]) == 2
    assert "missing" in capsys.readouterr().out
    assert main(["data", "check", "dukemtmc_ps", "--root", str(tmp_path)]) == 2
    assert "cannot be had" in capsys.readouterr().err
    assert main(["data", "check", "prw", "--root", str(tmp_path), "--boxes", "detected"]) == 2
    assert "one kind of boxes" in capsys.readouterr().err
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert "never released" in next(line for line in out.splitlines() if line.startswith("dukemtmc_ps"))


def test_nothing_is_left_where_writing_fails(simulated, tmp_path):
    train, search = simulated
    broken = SceneSet(
        train.names, train.camids, train.boxes, train.pids, [str(tmp_path / "none.jpg")] * len(train), train.sizes
    )
    for write in WRITERS.values():
        with pytest.raises(FileNotFoundError, match="none.jpg"):
            write(tmp_path / "out", broken, search)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        write_prw(tmp_path / "mine", train, search)
    with pytest.raises(FileExistsError, match="not empty"):
        write_cuhk_sysu(tmp_path / "mine" / "thesis.txt", train, search)
    with pytest.raises(ValueError, match="unknown person-search set"):
        render_person_search("market1501", tmp_path / "x")


# ---- manifests


def test_manifests_agree_with_the_printed_table():
    """W Table 4.1, from the printed values."""
    import pandas as pd

    from scalable_arch.data.manifests import manifest_dir

    printed = (
        pd.read_csv(manifest_dir().parent / "printed" / "wei_li_thesis_t4_01.csv").set_index(["row", "metric"]).value
    )
    names = dict(
        ids="n_ID",
        scenes="n_images",
        train_ids="n_train_ID",
        test_ids="n_test_ID",
        train_scenes="n_train_images",
        test_scenes="n_test_images",
    )
    for name, row in (("cuhk_sysu", "CUHK-SYSU"), ("prw", "PRW"), ("dukemtmc_ps", "DukeMTMC-PS")):
        table = load_manifest(name)["table_4_1"]
        assert table == {key: printed[row, metric] for key, metric in names.items()}
        if name != "dukemtmc_ps":
            expected = load_manifest(name)["expected"]
            assert (expected["train"]["scenes"], expected["test"]["scenes"]) == (
                table["train_scenes"],
                table["test_scenes"],
            )
    assert (
        load_manifest("cuhk_sysu")["expected"]["test"]["queries"] == load_manifest("cuhk_sysu")["table_4_1"]["test_ids"]
    )
    assert not set(search_names()) & set(reader_names()) and "expected" not in load_manifest("dukemtmc_ps")
