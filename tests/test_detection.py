"""Detection scores against loops and scikit-learn; the protocol; the mistakes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from scalable_arch.metrics import evaluate_detection
from scalable_arch.metrics.detection import overlaps


def iou_of_two(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def reference(detections, truth, threshold, min_score):
    "Recall, AP and which boxes are right, as the person-search evaluators count: scikit-learn's AP times recall."
    labels, scores, total, marks = [], [], 0, []
    for (boxes, box_scores), people in zip(detections, truth):
        total += len(people)
        kept = [j for j in range(len(boxes)) if min_score is None or box_scores[j] >= min_score]
        iou = [[iou_of_two(person, boxes[j]) for j in kept] for person in people]
        mark = [False] * len(boxes)
        for place, j in enumerate(kept):
            column = [row[place] for row in iou]
            if column:
                i = column.index(max(column))
                mark[j] = column[i] >= threshold and iou[i].index(max(iou[i])) == place
            labels.append(mark[j])
            scores.append(box_scores[j])
        marks.append(mark)
    recall = sum(labels) / total
    return recall, average_precision_score(labels, scores) * recall if any(labels) else 0.0, marks


@st.composite
def scenes(draw):
    "Few boxes on a coarse grid, so that overlaps, equal overlaps, equal scores and empty scenes are common."

    def boxes(most):
        corner = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=most))
        return np.array(
            [[x * 2, y * 2, x * 2 + draw(st.integers(0, 5)), y * 2 + draw(st.integers(1, 5))] for x, y in corner], float
        ).reshape(-1, 4)

    detections, truth = [], []
    for _ in range(draw(st.integers(1, 4))):
        found = boxes(5)
        detections.append((found, np.array([draw(st.integers(0, 4)) / 4 for _ in found])))
        truth.append(boxes(3))
    return detections, truth


@given(scenes(), st.sampled_from([0.3, 0.5, 0.75]), st.sampled_from([None, 0.5]))
def test_against_loops(problem, threshold, min_score):
    detections, truth = problem
    if not any(len(people) for people in truth):
        with pytest.raises(ValueError, match="has a person in truth"):
            evaluate_detection(detections, truth)
        return
    result = evaluate_detection(detections, truth, iou_threshold=threshold, min_score=min_score)
    recall, ap, marks = reference(detections, truth, threshold, min_score)
    assert result.recall == pytest.approx(recall, abs=1e-12) and result.ap == pytest.approx(ap, abs=1e-12)
    assert [right.tolist() for right in result.right] == marks
    assert result.num_detections == sum((scores >= (min_score or 0)).sum() for _, scores in detections)
    assert result.ap <= result.recall <= 1 and (np.diff(result.curve["score"]) < 0).all()
    if result.num_detections:
        assert result.curve["recall"][-1] == result.recall and result.curve["precision"][-1] == result.precision


def test_tensors_lists_and_more_than_boxes_and_scores():
    boxes, scores, truth = [[0.0, 0, 10, 10], [20, 0, 30, 10]], [0.5, 0.9], [[1, 0, 11, 10]]
    plain = evaluate_detection([(boxes, scores), ([], [])], [truth, []])
    tensors = evaluate_detection(
        [(torch.tensor(boxes), torch.tensor(scores).requires_grad_(), "features"), (torch.zeros(0, 4), torch.zeros(0))],
        [torch.tensor(truth), torch.zeros(0, 4)],
    )
    assert plain.ap == tensors.ap == 0.5 and plain.recall == 1 and plain.precision == 0.5
    assert "AP 50.0%  recall 100.0%  (1 people, 2 boxes" in str(plain)


def test_nothing_found_scores_nothing():
    result = evaluate_detection([([], [])], [[[0, 0, 1, 1]]])
    assert (result.ap, result.recall, result.precision, result.num_truth) == (0, 0, 0, 1)


def test_boxes_without_area_overlap_nothing():
    assert overlaps(np.array([[1.0, 1, 1, 1]]), np.array([[1.0, 1, 1, 1], [0, 0, 2, 2]])).tolist() == [[0, 0]]
    assert evaluate_detection([([[1, 1, 1, 1]], [1.0])], [[[1, 1, 1, 1]]]).recall == 0


@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(truth=[]), "there are detections for 1 scenes but truth for 0"),
        (dict(truth=[[]]), "none of the 1 scenes has a person in truth"),
        (
            dict(truth=[[[5, 0, 0, 5]]]),
            "truth[0][0] is [5.0, 0.0, 0.0, 5.0]: x1, y1, x2, y2 must be numbers with x1 <= x2",
        ),
        (dict(truth=[[[np.nan, 0, 0, 5]]]), "truth[0][0] is [nan, 0.0, 0.0, 5.0]"),
        (dict(truth=[[["a", "b", "c", "d"]]]), "truth[0] must be numbers of shape (n, 4)"),
        (dict(detections=[np.zeros((1, 5))]), "detections[0] must be a pair of boxes (m, 4) and scores (m,)"),
        (dict(detections=[(np.zeros((1, 5)), [1.0])]), "the boxes of detections[0] must be numbers of shape (n, 4)"),
        (dict(detections=[(np.zeros((1, 4)), [1.0, 2.0])]), "the scores of detections[0] must be 1 numbers, one a box"),
        (dict(detections=[(np.zeros((1, 4)), [np.nan])]), "the scores of detections[0] must be 1 numbers"),
        (dict(iou_threshold=0), "iou_threshold must be above 0 and at most 1, not 0"),
    ],
)
def test_mistakes_are_one_sentence(change, sentence):
    with pytest.raises(ValueError) as stop:
        evaluate_detection(**{**dict(detections=[([[0, 0, 5, 5]], [1.0])], truth=[[[0, 0, 5, 5]]]), **change})
    assert sentence in str(stop.value) and "\n" not in str(stop.value)
