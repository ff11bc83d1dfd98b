"""What people hand in: half precision, unsigned ids, a camera for each image or none at all, rows that are not finite.

What all scores have in common; each score's own tests are in its own file.
"""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch.metrics import (
    build_index,
    dimension_study,
    evaluate,
    evaluate_detection,
    evaluate_person_search,
    evaluate_segmentation,
    expand_queries,
    multi_query,
    rerank,
    search,
)
from scalable_arch.metrics.retrieval import Identities

HALVES = [torch.bfloat16, torch.float16]


def cloud(num_query=30, num_gallery=300, dim=12, people=20, cameras=4, seed=0):
    "Features and ids of a small problem with right and wrong neighbours, junk and distractors."
    rng = np.random.default_rng(seed)
    pids, camids = rng.integers(-1, people, num_query + num_gallery), rng.integers(0, cameras, num_query + num_gallery)
    features = (rng.standard_normal((people + 1, dim))[pids] + rng.standard_normal((len(pids), dim))).astype(np.float32)
    names = ("query_features", "query_pids", "query_camids"), ("gallery_features", "gallery_pids", "gallery_camids")
    sides = np.split(np.arange(len(pids)), [num_query])
    return {name: array[side] for side, own in zip(sides, names) for name, array in zip(own, (features, pids, camids))}


def same(left, right):
    "Whether two results of `evaluate` have the same scores and lists, to the bit."
    fields = "cmc mAP mINP num_valid ap inp first_match".split()
    fields += ["ranking", "ranking_labels"] if left.ranking is not None else []
    return all(np.array_equal(getattr(left, name), getattr(right, name), equal_nan=True) for name in fields)


# ---- half precision


@pytest.mark.parametrize("dtype", HALVES)
def test_distances_in_half_precision_score_as_what_they_hold(dtype):
    problem = cloud()
    query, gallery = (torch.from_numpy(problem.pop(name)) for name in ("query_features", "gallery_features"))
    distances = torch.cdist(query, gallery).to(dtype)
    assert same(
        evaluate(distances=distances, **problem, top_k=5), evaluate(distances=distances.double(), **problem, top_k=5)
    )
    both = torch.cat([query, gallery])
    square = torch.cdist(both, both).fill_diagonal_(0).to(dtype)
    ours, exact = (rerank(distances=each, num_query=len(query)) for each in (square, square.double()))
    np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-6)
    assert same(evaluate(query.to(dtype), gallery, **problem), evaluate(query.to(dtype).float(), gallery, **problem))


@pytest.mark.parametrize("dtype", HALVES)
def test_boxes_scores_and_features_in_half_precision(dtype):
    boxes, truth = torch.tensor([[0.0, 0, 8, 16], [32, 0, 40, 16]]), torch.tensor([[0.0, 1, 8, 16]])
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 2, 2], [2.0, -1, 0.5]]))
    found = [(boxes.to(dtype), torch.tensor([0.5, 0.75]).to(dtype), features.to(dtype))] * 2
    exact = [tuple(part.float() for part in scene) for scene in found]
    assert evaluate_detection(found, [truth.to(dtype)] * 2).ap == evaluate_detection(exact, [truth] * 2).ap == 0.5
    sought = dict(queries=[[0, 0]], truth_boxes=[truth] * 2, truth_pids=[[3], [3]])
    ours = evaluate_person_search(features[:1].to(dtype), found, **sought)
    assert ours.mAP == evaluate_person_search(exact[0][2][:1], exact, **sought).mAP == 1


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_class_maps_must_be_whole_numbers_also_in_half_precision(dtype):
    maps = torch.zeros(2, 4, 4)
    with pytest.raises(ValueError, match=f"must be whole numbers, not {str(dtype)[6:]}: take argmax over the classes"):
        evaluate_segmentation(maps.to(dtype), maps.long(), 3)
    assert evaluate_segmentation(maps.to(torch.uint8), maps.long(), 3).miou == 1


# ---- ids and cameras


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64, np.int32, np.int64])
def test_unsigned_ids_count_as_signed_ones(dtype):
    problem = {name: np.abs(array) if "ids" in name else array for name, array in cloud().items()}
    typed = {name: array.astype(dtype) if "ids" in name else array for name, array in problem.items()}
    assert same(evaluate(**typed, top_k=3), evaluate(**problem, top_k=3))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_an_id_that_no_signed_number_holds_is_no_junk(kind):
    problem, largest = cloud(), np.uint64(2**64 - 1)
    ids = np.abs(problem["gallery_pids"]).astype(np.uint64)
    ids[7] = largest
    with pytest.raises(ValueError, match=f"^gallery_pids holds {largest}, but numbers must be below 2 \\*\\* 63"):
        evaluate(**problem | {"gallery_pids": kind(ids)})
    ids[7] = 2**63 - 1
    assert evaluate(**problem | {"gallery_pids": kind(ids)}).num_valid
    with pytest.raises(ValueError, match=f"^the mask holds {largest}"):
        evaluate_segmentation(np.zeros((1, 2, 2), int), np.full((1, 2, 2), largest), 3, ignore=-1)
    scene = [([[0, 0, 9, 9]], [0.9], [[1.0, 0.0]])] * 2
    people = dict(queries=[[0, 0]], truth_boxes=[[[0, 0, 9, 9]]] * 2, truth_pids=[np.array([largest])] * 2)
    with pytest.raises(ValueError, match=rf"^truth_pids\[0\] holds {largest}"):
        evaluate_person_search(np.array([[1.0, 0.0]]), scene, **people)


def without_cameras(problem):
    return problem | {"query_camids": None, "gallery_camids": None}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["rectangle", "trapezoid"]))
def test_no_cameras_are_a_camera_for_each_image(seed, ap):
    problem = cloud(num_query=6, num_gallery=40, dim=2, people=4, seed=seed)
    single = problem | {"query_camids": np.arange(6), "gallery_camids": np.arange(6, 46)}
    ours = evaluate(**without_cameras(problem), ap=ap, top_k=40)
    assert same(ours, evaluate(**single, ap=ap, top_k=40))
    assert not ((ours.ranking_labels == -1) & (problem["gallery_pids"][ours.ranking] != -1)).any()
    assert ours.protocol["junk"] == "id -1" and ours.protocol["mean"] == "queries with a match"


def test_cameras_of_one_side_alone_and_strangers_are_told():
    problem = cloud()
    for name in ("query_camids", "gallery_camids"):
        with pytest.raises(ValueError, match="^give query_camids and gallery_camids, or None for both"):
            evaluate(**problem | {name: None})
    strangers = without_cameras(problem) | {"gallery_pids": problem["gallery_pids"] + 1000}
    with pytest.raises(ValueError, match="^no query has a match: query ids .* have none in common$"):
        evaluate(**strangers)
    one = problem | {"query_camids": problem["query_camids"] * 0, "gallery_camids": problem["gallery_camids"] * 0}
    with pytest.raises(ValueError, match="all images are from one camera .* None for both lists of cameras"):
        evaluate(**one)
    with pytest.raises(TypeError, match="query_camids"):  # nobody loses the rule by forgetting the cameras
        evaluate(**{name: value for name, value in problem.items() if name != "query_camids"})


def test_a_camera_for_each_image_needs_memory_for_images_alone():
    rng = np.random.default_rng(0)
    query, gallery = 2_000, 100_000
    pids = rng.integers(0, 10_000, query + gallery)
    people = Identities(
        pids[:query], pids[query:], np.arange(query), np.arange(query, query + gallery), (query, gallery)
    )
    tracemalloc.start()
    found = people.num_matches()
    assert tracemalloc.get_traced_memory()[1] < 50e6  # 8 GB as a table of persons and cameras
    tracemalloc.stop()
    assert np.array_equal(found, np.bincount(pids[query:], minlength=10_000)[pids[:query]])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_matches_are_counted_as_by_looking_at_all_pairs(seed, people, cameras):
    problem = cloud(num_query=7, num_gallery=30, people=people, cameras=cameras, seed=seed)
    ids = [problem[f"{side}_{name}"] for name in ("pids", "camids") for side in ("query", "gallery")]
    pids, own, camids, other = ids
    expected = (pids[:, None] == own) & (camids[:, None] != other) & (pids[:, None] != -1)
    assert np.array_equal(Identities(*ids, (7, 30)).num_matches(), expected.sum(1))


def test_cameras_and_people_are_not_mixed_up():
    "The one match is from another camera, whose number is that of the person; junk shares the camera alone."
    ids = dict(query_pids=[5], gallery_pids=[5, 5, 7], query_camids=[5], gallery_camids=[5, 9, 5])
    result = evaluate(distances=[[0.1, 0.2, 0.15]], **ids, top_k=3)
    assert result.ranking_labels.tolist() == [[-1, 0, 1]] and result.ap.tolist() == [0.5]
    swapped = dict(query_pids=[1], gallery_pids=[1, 2], query_camids=[1], gallery_camids=[2, 1])
    result = evaluate(distances=[[0.1, 0.2]], **swapped, top_k=2)
    assert result.ranking_labels.tolist() == [[1, 0]] and result.mAP == 1


# ---- rows that are not finite, or have no direction


def spoilt(features, row, value):
    features = features.copy()
    features[row, 1] = value
    return features


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["exact", "flat", "sq8", "ivfpq"])
def test_no_search_takes_rows_that_are_not_finite(method, value):
    if method != "exact":
        pytest.importorskip("faiss")
    problem = cloud()
    query, gallery = problem["query_features"], problem["gallery_features"]
    with pytest.raises(ValueError, match="^gallery_features row 41 is not finite .*1 such rows of 300"):
        search(query, spoilt(gallery, 41, value), 3, method=method)
    with pytest.raises(ValueError, match="^query_features row 2 is not finite"):
        search(spoilt(query, 2, value), gallery, 3, method=method)
    if method != "exact":
        with pytest.raises(ValueError, match="^gallery_features row 41 is not finite"):
            build_index(spoilt(gallery, 41, value), method)
        with pytest.raises(ValueError, match="^query_features row 2 is not finite"):
            search(spoilt(query, 2, value), build_index(gallery, method), 3)
        with pytest.raises(ValueError, match="^gallery_features row 3 is not finite"):  # in float32, which faiss takes
            build_index(spoilt(gallery.astype(float), 3, 1e300), method)


def test_nothing_is_made_of_rows_that_are_not_finite_or_zero():
    problem = cloud()
    query, gallery = problem.pop("query_features"), problem.pop("gallery_features")
    broken = spoilt(gallery, 41, np.nan)
    for attempt, name in (
        (lambda: expand_queries(query, broken), "gallery_features"),
        (lambda: multi_query(broken, problem["gallery_pids"], problem["gallery_camids"]), "features"),
        (lambda: dimension_study(query, broken, (4,), **problem), "gallery_features"),
        (lambda: dimension_study(query, broken, (1,), method="slice", **problem), "gallery_features"),
        (lambda: dimension_study(query, gallery, (4,), fit=broken, **problem), "fit"),
    ):
        with pytest.raises(ValueError, match=f"^{name} row 41 is not finite"):
            attempt()
    for tiny in (0, 1e-30):
        query[3] = tiny
        with pytest.raises(ValueError, match="^query_features row 3 is zero, or too small"):
            expand_queries(query, gallery)
    with pytest.raises(ValueError, match="^gallery_features row 5 is zero"):
        expand_queries(query[:3], np.where(np.arange(300)[:, None] == 5, 0, gallery))


def test_a_study_of_dimensions_wants_one_dimension_and_whole_numbers():
    problem = cloud()
    query, gallery = problem.pop("query_features"), problem.pop("gallery_features")
    wide = np.concatenate([gallery, gallery[:, :4]], 1)
    for method in ("pca", "slice"):
        with pytest.raises(ValueError, match="^query_features have 12 dimensions but gallery_features 16"):
            dimension_study(query, wide, (4,), method=method, **problem)
    with pytest.raises(ValueError, match="^fit have 16 dimensions but gallery_features 12"):
        dimension_study(query, gallery, (4,), fit=wide, **problem)
    with pytest.raises(ValueError, match="^dims must be whole numbers, not"):
        dimension_study(query, gallery, (4.5,), **problem)
    assert dimension_study(query, gallery, np.array([4, 12]), **problem).dim.tolist() == [4, 12]


@pytest.mark.parametrize("block_mb", [np.inf, np.nan, 0, -1, "512"])
def test_memory_must_be_a_number_of_megabytes(block_mb):
    with pytest.raises(ValueError, match="^block_mb must be a positive and finite number of megabytes"):
        evaluate(**cloud(), block_mb=block_mb)
    assert same(evaluate(**cloud(), block_mb=np.float32(1e-3)), evaluate(**cloud(), block_mb=10**30))
