"""What an engineer writes who scores, trains and measures networks: checked by mypy, never run."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from scalable_arch.metrics import (
    RerankedDistances,
    RetrievalResult,
    build_index,
    dimension_study,
    evaluate,
    evaluate_detection,
    evaluate_person_search,
    evaluate_segmentation,
    expand_queries,
    multi_query,
    plot_ranked_list,
    recall,
    rerank,
    search,
)
from scalable_arch.metrics.distributed import evaluate_sharded
from scalable_arch.nn.boxes import anchor_boxes, box_iou, clip_boxes, decode_boxes, encode_boxes, nms, roi_align
from scalable_arch.nn.cifar import pyramidnet110_cifar, resnet18_cifar
from scalable_arch.nn.cost import Cost, measure
from scalable_arch.nn.deeplab import ASPP, DeepLabV3
from scalable_arch.nn.efficient import channel_shuffle, condensenet, mobilenet, shufflenet
from scalable_arch.nn.embedding import EmbeddingNet, matching, resnet50_reid
from scalable_arch.nn.inference import fold_batchnorm, reuse_memory
from scalable_arch.nn.resnet import ResNet, resnet50
from scalable_arch.nn.units import BranchOutput, ConvUnit
from scalable_arch.train import (
    LOSSES,
    accuracy,
    cross_entropy,
    extract_features,
    fit,
    fit_classifier,
    fit_segmentation,
    load_checkpoint,
    load_model,
    predict_segmentation,
    save_checkpoint,
    save_model,
    score_segmentation,
    triplet,
)

Floats = npt.NDArray[np.float32]


def score(query: Floats, gallery: Floats, pids: list[int], folder: Path) -> RetrievalResult:
    ids: dict[str, Any] = dict(
        query_pids=pids, gallery_pids=pids, query_camids=[0] * len(pids), gallery_camids=[1] * len(pids)
    )
    result = evaluate(torch.from_numpy(query), gallery, **ids, ap="trapezoid", top_k=10, threads=2)
    evaluate(
        distances=[[1.0, 2.0]],
        query_pids=[1],
        gallery_pids=np.array([1, 2]),
        query_camids=[0],
        gallery_camids=torch.tensor([1, 1]),
    )
    for source in (RerankedDistances(query, gallery, k1=10), rerank(query, gallery, lambda_value=0.5, threads=1)):
        evaluate(distances=source, **ids).save(folder / "scores.json")
    evaluate(expand_queries(query, gallery, k=3, alpha=2), gallery, **ids, ap="triangle")  # type: ignore[arg-type]
    means, people, cameras = multi_query(query, pids, np.zeros(len(pids), int))
    plot_ranked_list(query[0], list(gallery), result.ranking_labels[0], titles=["a"] * len(gallery))[0].set_title(
        f"{result.rank(1):.1%}"
    )
    print(
        evaluate_sharded(
            query, gallery[::2], query_pids=pids, gallery_pids=pids, query_camids=[0], gallery_camids=[1], top_k=5
        ).ranking
    )
    result.rank("1")  # type: ignore[arg-type]
    best: float = result.summary()["mAP"] + means.mean() + people[0] + cameras[0]
    print(best, result.mAP.lower())  # type: ignore[attr-defined]
    return result


def look_up(query: Floats, gallery: Floats) -> None:
    index = build_index(gallery, "ivfpq", cells=64, probes=8)
    distances, found = search(query, index, k=5)
    exact = search(query, gallery, method="exact", threads=2)[1]
    print(
        recall(found, exact),
        distances.min(),
        dimension_study(query, gallery, (64, 128), method="slice", query_pids=[1]).shape,
    )
    search(query, gallery, method="hnsw")  # type: ignore[arg-type]
    search(query, gallery, k="5")  # type: ignore[arg-type]


def score_scenes(boxes: list[torch.Tensor], scores: list[Floats], features: list[Floats]) -> None:
    print(evaluate_detection([([[0, 0, 4, 9]], [0.9]), ([], [])], [boxes[0], []], min_score=0.5).ap)
    evaluate_detection(boxes[0], boxes)  # type: ignore[arg-type]
    detections = list(zip(boxes, scores, features))
    result = evaluate_person_search(
        features[0][:1],
        detections,
        queries=[(0, 0)],
        truth_boxes=boxes,
        truth_pids=[[7], [7, -1]],
        protocol="prw",
        ks=(1, 5),
        gallery_size=100,
    )
    print(result.rank(5), result.cmc[0], result.summary()["recall"], result.save("scores.json").name)
    evaluate_person_search(
        features[0][:1],
        detections,
        queries=[(0, 0)],
        truth_boxes=boxes,
        truth_pids=[[7]],
        ks=5,  # type: ignore[arg-type]
    )


class Lazy:
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(index), 3, 160, 64, dtype=torch.uint8)


def label_smoothing(output: BranchOutput, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(output, labels) + triplet(output, labels, margin=0.2, mining="hardest")


def train(images: torch.Tensor, pids: list[int], folder: Path) -> torch.Tensor:
    model = matching(mobilenet, 10, feature_dim=128, width=0.25)
    history = fit(
        model, images, pids, epochs=3, milestones=(2,), loss=label_smoothing, checkpoint=folder, on_epoch=print
    )
    fit(model, Lazy([folder]), np.array(pids), loss="triplet", sampler="identity", progress=False)
    print(history[-1]["loss"], LOSSES.keys(), LOSSES["cross_entropy"](model(images), torch.tensor(pids)).item())
    fit(model, folder, pids)  # type: ignore[arg-type]
    fit(model, images, pids, epoch=3)  # type: ignore[call-arg]
    triplet(torch.zeros(2, 3), torch.zeros(2))  # type: ignore[arg-type]
    save_model(folder / "weights.safetensors", model, accuracy=0.5, names=["a"])
    print(load_model("weights.safetensors", model)["accuracy"])
    save_checkpoint("run", {"x": images}, {"epoch": 1})
    tensors, state = load_checkpoint(folder)
    print(tensors["x"].shape, state["epoch"])
    return extract_features(fold_batchnorm(model), images, batch_size=32)


def train_classifier(images: torch.Tensor, labels: torch.Tensor, teacher: nn.Module) -> float:
    model = resnet18_cifar(5, width=16, calibration=lambda channels: nn.Conv2d(channels, channels, 1))
    records = fit_classifier(
        model,
        images,
        labels,
        epochs=2,
        schedule="steps",
        milestones=[1],
        clip=None,
        cutout=0,
        guidance=lambda maps, batch: (teacher(batch) - maps[-1].mean((2, 3))).square().mean(),
    )
    fit_classifier(model, images, labels)  # type: ignore[call-arg]
    print(records[-1]["accuracy"], records[-1].loss)  # type: ignore[attr-defined]
    return accuracy(pyramidnet110_cifar(depth=20), images, labels, top=5)


def train_segmentation(images: torch.Tensor, masks: torch.Tensor) -> float:
    model = DeepLabV3(
        resnet50(None), 4, in_channels=2048, features=lambda backbone, batch: backbone(batch), rates=(1, 2)
    )
    fit_segmentation(
        model,
        images,
        list(masks),
        epochs=1,
        crop=(64, 96),
        scales=[1, 1],
        on_epoch=lambda record: print(record["pixel_accuracy"]),
    )
    fit_segmentation(model, images, masks, crop="64")  # type: ignore[arg-type]
    predicted, listed = predict_segmentation(model, images), predict_segmentation(model, list(images))
    print(
        evaluate_segmentation(predicted, masks, 4).iou,
        evaluate_segmentation(listed, [mask.tolist() for mask in masks], 4, ignore=0),
    )
    return score_segmentation(model, images, masks, 4).miou + predicted.shape[0] + len(listed)


def count(images: torch.Tensor) -> Cost:
    models = [
        ResNet(10, depths=(1, 1, 1, 1), width=0.5),
        shufflenet(groups=2),
        condensenet(None),
        EmbeddingNet(resnet50(None)),
        resnet50_reid(10),
    ]
    folded: ResNet = fold_batchnorm(ResNet())
    print(
        folded.num_features,
        reuse_memory(),
        ConvUnit(3, 8, 3, stride=2)(images),
        ASPP(8, rates=(1, 2)),
        channel_shuffle(images, 3),
    )
    measure(models[0], 224)  # type: ignore[arg-type]
    return max(measure(model, (3, *images.shape[2:])) for model in models)


def detect(maps: torch.Tensor, deltas: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    anchors = anchor_boxes(maps.shape[-2:], 16, [40, 80.0], device="cpu")
    boxes = clip_boxes(decode_boxes(deltas, anchors, weights=(10, 10, 5, 5)), (480, 640))
    kept = boxes[nms(boxes, scores, 0.5)]
    print(box_iou(kept, anchors).max(), encode_boxes(kept, kept).abs().max())
    box_iou([[0, 0, 1, 1]], kept)  # type: ignore[arg-type]
    return roi_align(maps, torch.cat([torch.zeros(len(kept), 1), kept], 1), 7, 1 / 16, aligned=False)
