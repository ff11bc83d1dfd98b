"""What an engineer writes who builds, searches and teaches networks: checked by mypy, never run."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from scalable_arch.data.scenes import SceneSet
from scalable_arch.han import HAN, Attention, crop_regions, han_inception, han_small
from scalable_arch.hdl import (
    TeacherBackbone,
    batch_losses,
    distillation_losses,
    fit_person_search,
    fold,
    hdl_student,
    hdl_teacher,
    load_backbone,
    map_loss,
    map_starts,
    prediction_loss,
    total_loss,
)
from scalable_arch.nas import (
    PUBLISHED,
    SPACES,
    AlphaController,
    CifarNetwork,
    Genotype,
    ImageNetNetwork,
    Space,
    Supernet,
    cell_costs,
    derive,
    draw,
    genotype_cost,
    make_operation,
    random_genotype,
    random_search,
    regularised_evolution,
    reinforce,
)
from scalable_arch.nas.discrete import LogitsPolicy, PolicyGuide, UniformGuide
from scalable_arch.nas.genotype import choice_sizes, genotype_from_choices
from scalable_arch.nas.networks import Position, darts_v2_imagenet
from scalable_arch.nas.search import search
from scalable_arch.nge import NGEController, PlainController, RNNController, augmented_adjacency, chain_policy
from scalable_arch.nn.cifar import pyramidnet110_cifar, resnet18_cifar
from scalable_arch.nn.detector import PersonSearchNet, propose
from scalable_arch.nos import (
    AttentionGuidance,
    HeterogeneousCell,
    apply_kernels,
    calibrate,
    guidance_loss,
    heterogeneous_cost,
    make_calibration,
    nos_cifar,
    nos_imagenet,
    nos_supernet,
    self_calibration,
    sum_of_kernels,
)
from scalable_arch.train import fit_classifier
from scalable_arch.train.detection import (
    Detections,
    Match,
    anchor_losses,
    collate_scenes,
    describe_boxes,
    detect,
    fit_scenes,
    identity_labels,
    person_losses,
    sample_rois,
    search_scenes,
)


def look_at(images: torch.Tensor) -> list[Attention]:
    print(han_small(751, widths=(32, 48, 64), factored=True)(images).logits[0].shape)
    whole, parts, seen = HAN(strides=[1, 2], unit="residual", regional=False).eval().branches(images)
    crop_regions(images, seen[0].boxes[..., :2], size=(24, 28)).add(whole.mean() + parts.mean())
    HAN(10, strides=2)  # type: ignore[arg-type]
    han_small("751")  # type: ignore[arg-type]
    return han_inception(None, feature_dim=512).attend(images)


class OneOperation(nn.Module):
    "A cell of one's own."

    def __init__(self, genotype: Genotype, position: Position, before: int, last: int) -> None:
        super().__init__()
        self.operation, self.out_channels = (
            make_operation("sep_conv_3x3", last, 2 if position.kind == "reduction" else 1, affine=False),
            last,
        )

    def forward(self, before: torch.Tensor, last: torch.Tensor, rate: float) -> torch.Tensor:
        return torch.as_tensor(self.operation(last))


def build(space: Space, images: torch.Tensor, folder: Path) -> nn.Module:
    table = cell_costs(space, ImageNetNetwork, image_size=(224, 224), quantity="macs", channels=48)
    even = {cell: np.ones((len(space.edges()), len(space.operations))) for cell in ("normal", "reduction")}
    found = derive(even, space, exclude=["skip_connect"], required=("sep_conv_3x3",), budget=600e6, cost=table)
    drawn = random_genotype(space, np.random.default_rng(0), budget=6e8, cost=table, attempts=100)
    print(
        genotype_cost(found, table) / 1e6,
        space.size(exclude={"skip_connect"}),
        drawn.nodes("normal")[0][0],
        drawn.concat("reduction"),
    )
    draw(Genotype.from_json(found.to_json()), "normal", title="Found:").savefig(folder / "found.svg")
    network = CifarNetwork(found, channels=16, cells=8, num_classes=None, cell=OneOperation)
    print(
        [tuple(x.shape) for x in network.features(images)],
        network.num_features,
        darts_v2_imagenet(5, drop_path=0.2)(images)[1],
    )
    random_genotype("nge", 0)  # type: ignore[arg-type]
    derive(even["normal"], space)  # type: ignore[arg-type]
    cell_costs(space, image_size="224")  # type: ignore[arg-type]
    CifarNetwork("darts_v2")  # type: ignore[arg-type]
    make_operation("none", channels="16")  # type: ignore[arg-type]
    return ImageNetNetwork(PUBLISHED["nasnet"], auxiliary=False, output_stride=16)


class NextPlace:
    "A guide of one's own: changes the places in turn."

    place = 0

    def propose(self, parent: tuple[int, ...]) -> tuple[int, ...]:
        return (*parent[: self.place], 1 - parent[self.place], *parent[self.place + 1 :])

    def learn(self, parent: tuple[int, ...], child: tuple[int, ...], gain: float) -> None:
        self.place = (self.place + 1) % len(parent)


def choose(space: Space, worth: dict[str, float]) -> Genotype:
    def value(choices: tuple[int, ...]) -> float:
        return worth.get(genotype_from_choices(choices, space).to_json(), 0.0)

    sizes = choice_sizes(space)
    for guide in (None, UniformGuide(sizes), PolicyGuide(LogitsPolicy(sizes), sizes, lr=3e-4)):
        print(regularised_evolution(sizes, value, budget=100, population=20, sample=5, guide=guide).best_so_far()[-1])
    regularised_evolution([2] * 8, lambda choices: np.float32(sum(choices)), budget=100, guide=NextPlace())
    policy = chain_policy(8, ("small", "large"), make=PlainController, edge=8)
    print(
        reinforce([2] * 8, lambda choices: torch.tensor(choices).sum(), budget=300, policy=policy, lr=3e-4)
        .incumbents()
        .tolist()
    )
    regularised_evolution(sizes, value, budget=10, guide=policy)  # type: ignore[arg-type]
    random_search(sizes, json_of, budget=10)  # type: ignore[arg-type]
    return genotype_from_choices(random_search(sizes, value, budget=100, seed=1).best(), space)


def json_of(choices: tuple[int, ...]) -> list[int]:
    return list(choices)


def find(images: torch.Tensor, labels: np.ndarray, folder: Path) -> Genotype:
    teacher, space = pyramidnet110_cifar(num_classes=10), SPACES["nge"]
    guidance = AttentionGuidance(teacher, weight=100, form="paper")
    supernet = Supernet(space, channels=8, cells=5, controller=NGEController(space, layers=2, adjacency="literal"))
    history = search(
        supernet,
        images,
        labels,
        epochs=2,
        alternate="batch",
        clip=None,
        guidance=guidance,
        checkpoint=folder,
        on_epoch=print,
    )
    search(
        Supernet("darts", controller=AlphaController(SPACES["darts"])),
        images,
        list(labels),
        guidance=lambda maps, batch: maps[-1].mean(),
        guided="weights",
    )
    search(nos_supernet(channels=4), images, torch.from_numpy(labels), epochs=1, order=2, progress=False)
    fit_classifier(
        nos_cifar(random_genotype(SPACES["nos"], 0), channels=8), images, labels, epochs=1, guidance=guidance
    )
    logits, maps = supernet.forward_with_maps(images.float(), supernet.probabilities())
    print(
        guidance(maps, images.float()).item(),
        guidance_loss(maps, supernet.features(images.float())),
        logits.argmax(1),
        len(supernet.weights()),
    )
    print(RNNController(space).embeddings()["normal"].edges.shape, augmented_adjacency(space.edges(), "literal").sum())
    search(supernet, images, labels, alternate="step")  # type: ignore[arg-type]
    search(supernet, images, labels, guidance=teacher.features)  # type: ignore[arg-type]
    Supernet(space, controller=NGEController)  # type: ignore[arg-type]
    NGEController("nge")  # type: ignore[arg-type]
    AttentionGuidance(teacher, form="codes")  # type: ignore[arg-type]
    return Genotype.from_json(history[-1]["genotype"])


def calibrated(maps: torch.Tensor) -> torch.Tensor:
    kernels = sum_of_kernels([make_calibration("dynamic_conv_5x5", 16)(maps), torch.ones(len(maps), 16, 3, 3)])
    print(
        cell_costs(SPACES["nos"], operation_cost=heterogeneous_cost, cell=HeterogeneousCell)["fixed"],
        heterogeneous_cost("spatial_attention", 16, 1, (32, 32)).macs,
    )
    resnet18_cifar(num_classes=10, calibration=self_calibration("channel_attention"))
    self_calibration(3)  # type: ignore[arg-type]
    nos_imagenet("nos")  # type: ignore[arg-type]
    return calibrate(maps, attention=maps.sigmoid(), kernels=kernels, dilation=2) + apply_kernels(
        maps, kernels, onto=maps
    )


class TwoScenes:
    "Scenes of one's own."

    names, pids = ["first", "second"], [torch.tensor([0, 1]), torch.tensor([1])]
    boxes = [torch.tensor([[0.0, 0.0, 30.0, 60.0], [40.0, 0.0, 70.0, 60.0]]), torch.tensor([[5.0, 5.0, 35.0, 65.0]])]

    def __len__(self) -> int:
        return 2

    def image(self, number: int) -> torch.Tensor:
        return torch.zeros(3, 80, 80 + number, dtype=torch.uint8)


def teach(scenes: SceneSet, weights: dict[str, torch.Tensor], folder: Path) -> PersonSearchNet:
    teacher, student = (
        hdl_teacher(2, width=0.25, factored=True),
        hdl_student(num_classes=2, widths=[16, 16, 32, 32], anchor_heights=(32.0, 64.0)),
    )
    load_backbone(teacher, weights)
    load_backbone(PersonSearchNet(TeacherBackbone(0.5), None), folder / "resnet50.safetensors")
    fit_person_search(teacher, TwoScenes(), epochs=2, checkpoint=folder, progress=False)
    history = fit_person_search(
        student,
        scenes,
        teacher=teacher,
        distill="attention",
        norm="squared",
        kl="literal",
        levels=[0, 1],
        milestones=[1],
        on_epoch=print,
    )
    fit_person_search(
        student, scenes, teacher=teacher, distill=["feature", "prediction"], lr=history[-1]["lr"], lambda0=0.5
    )
    fit_scenes(
        PersonSearchNet(TeacherBackbone(0.5), 2, arms=list(teacher.arms)), TwoScenes(), flip=True, on_epoch=print
    )
    fit_scenes(student, scenes.boxes)  # type: ignore[arg-type]
    fit_person_search(student, scenes.boxes)  # type: ignore[arg-type]
    fit_person_search(student, scenes, kl="student")  # type: ignore[arg-type]
    fit_person_search(student, scenes, teacher=student.head)  # type: ignore[arg-type]
    return fold(student)


def loss_of(student: PersonSearchNet, teacher: PersonSearchNet, scenes: TwoScenes) -> torch.Tensor:
    batch, sizes = collate_scenes([scenes.image(0), scenes.image(1)])
    labels, known = identity_labels(scenes.pids)
    seen, taught = student(batch), teacher(batch)
    sample = sample_rois(propose(student, seen, sizes, number=50), scenes.boxes, labels, number=16)
    people, others = student.describe(seen.maps[-1], sample.rois), teacher.describe(taught.maps[-1], sample.rois)
    found = anchor_losses(student, seen, scenes.boxes, generator=torch.Generator()) | person_losses(people, sample)
    found |= distillation_losses(
        (seen, people),
        (taught, others),
        sample.kind == 1,
        starts=map_starts(student, teacher),
        distill={"feature"},
        norm="literal",
    )
    found |= batch_losses(
        student, batch, sizes, scenes.boxes, labels, teacher=teacher, distill=("prediction",), temperature=2.0
    )
    print(
        known, map_loss(batch[:, 0], batch[:, 1], "mean"), prediction_loss(people.logits, others.logits, kl="teacher")
    )
    total_loss(found["anchor"])  # type: ignore[arg-type]
    return total_loss(found, lambda0=0.5)


def look_for(model: PersonSearchNet, scene: torch.Tensor, scenes: SceneSet) -> tuple[list[Match], Detections]:
    found = detect(model, (scenes.image(number) for number in range(len(scenes))), score_threshold=0.2, progress=False)[
        0
    ]
    features = describe_boxes(model, scene, [[0.0, 0.0, 30.0, 60.0]]) @ describe_boxes(model, scene, found.boxes).T
    matches = search_scenes(
        model, scene, np.array([0.0, 0.0, 30.0, 60.0]), torch.stack([scene, scene]), num_proposals=50
    )
    print(features.max(), matches[0].similarity, detect(model, scene)[0].scores.tolist())
    detect(model, "scene.jpg")  # type: ignore[arg-type]
    describe_boxes(model, scene)  # type: ignore[call-arg]
    fold(model.backbone)  # type: ignore[arg-type]
    return matches, found
