"""What a user of the data rooms writes, for the type checker; it is not run."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from scalable_arch import data
from scalable_arch.errors import one_of

root, generator = Path("~/data").expanduser(), torch.Generator().manual_seed(0)

# files, images, batches
profile = one_of("profile", "quick", ["smoke", "quick"]).upper()
title: str = data.load_manifest(data.list_datasets()[0])["title"]
video, folder = (
    data.get_dataset("vtest", from_file="own.avi"),
    data.get_files("fashion_mnist", from_folder=root, progress=False),
)
kept = (data.cache_dir() / video.name).is_file() or folder.is_dir()
pictures = sorted(root.glob("*.jpg"))
pixels = data.load_images(pictures, (128, 64), progress=False)
pixels = torch.cat([pixels, *data.iter_image_batches([str(path) for path in pictures], [128, 64], batch_size=8)])
for batch in data.identity_batches(np.arange(len(pixels)) // 4, 8, 4, generator=generator):
    changed = data.random_erasing(
        data.random_flip(data.to_float(pixels[batch]), generator), generator, p=0.3, area=(0.02, 0.2)
    )
    shown = data.to_uint8(changed).permute(0, 2, 3, 1).numpy()
order = [batch.tolist() for batch in data.random_batches(len(pixels), 32, generator, drop_last=True)]
lengths = data.colour_histogram_stripes(pixels, 4, bins=(8, 2, 2)).norm(dim=1)
data.load_manifest(root)  # type: ignore[arg-type]
data.load_images(pictures, 128)  # type: ignore[arg-type]
data.random_flip(pixels, 0)  # type: ignore[arg-type]
data.to_float(np.zeros((1, 3, 4, 4)))  # type: ignore[arg-type]

# classification
images, digits = data.load_classification("digits", limit=100)
views, _ = data.load_classification("imagenet", root, "test", check=False, size=160)
grey = torch.stack([views[0], *views[torch.tensor([1, 2])], *views[3:5]]).float().mean() + images.float().mean()
own = len(data.ImageFolder(pictures, size=96, random_views=True))
data.write_classification("cifar10", root / "mine", (images, digits), test=(images[:10].numpy(), [0] * 10))
bench, names = data.nas_bench_macro(), data.class_names("cifar10")
gain = bench.mean_accuracy[bench.index("22212202")] - bench.accuracies[bench.index([[0] * 8, [1] * 8])].mean(1)
data.load_classification("imagenet", root)[0].float()  # type: ignore[attr-defined]
data.load_classification("digits", limit="100")  # type: ignore[call-overload]
data.write_classification("cifar10", root, images, digits)  # type: ignore[arg-type]

# copies on disk, persons
market = data.load_dataset("cuhk03", root, boxes="detected")
crops, classes = (
    data.load_images(sample.path for sample in market.train),
    max(market.train_labels) < market.num_train_pids,
)
checks = [
    data.check_dataset("market1501", root, decode=True),
    data.check_classification("cifar10", "cifar"),
    data.check_segmentation("voc2012", root),
    data.check_person_search("prw", root, progress=False),
]
print(*checks, all(check.ok for check in checks))
train, test = data.load_world("plaza", people=20), data.load_world("plaza", "test", size=(160, 64), workers=2)
print(train.labels.max(), test.images[torch.from_numpy(test.query)].shape, data.world_statistics(test_people=50).index)
settle = data.load_world("gate", "settle").query.sum() + len(data.load_scenes("settle").queries)
pairs = [data.cross_view_pairs(name, 5).shape for name in data.list_worlds()]
everybody = data.render_crops(range(1, 9), [1, 2], shots=2, cameras_per_id=1, size=(64, 32))
query = data.split_query(everybody.pids, everybody.camids.tolist()).sum()
crop = data.render_crop(
    data.Shot(1, 2, kind="labelled"), size=None, crowd=data.Crowd(hat=0.5), places=[data.Place()]
).convert("L")
counts = data.render_dataset("market1501", root / "rendered", num_train_ids=8, num_test_ids=4, size=None)["expected"]
first = data.load_vtest(video, size=(128, 64), margin=0.1).crops[0]
data.load_world("plaza").query  # type: ignore[attr-defined]
data.render_crops(8, [1, 2])  # type: ignore[arg-type]
data.check_dataset("market1501", root).problem  # type: ignore[attr-defined]

# the world
person, camera = data.make_person(3, crowd=data.Crowd(twins=0)), data.make_camera(2)
canvas, row = camera.scene.astype(np.float32) / 255, (camera.rows[0] + camera.rows[1]) / 2
left, top, right, low = data.draw_person(
    canvas,
    person.replace(hat=None),
    data.Pose(stride=0.3),
    foot=(300, row),
    scale=camera.scale(row),
    pitch=camera.pitch(row),
    light=data.Light(shadow=0.5),
)
data.draw_person(canvas, 3, data.Pose(), foot=(300, 200), scale=90)  # type: ignore[arg-type]

# scenes, person search
scenes, search = data.load_scenes(seed=1, people=10), data.load_scenes("test", protocol="cuhk_sysu", gallery_size=50)
one, axis = data.render_scene([1, 2, -1], 3, size=(96, 128), hung=data.Place()), plt.figure().add_subplot()
data.draw_scene(
    axis, one.image, one.boxes, texts=[f"{share:.0%}" for share in one.visible], colours=["red"] * len(one.boxes)
)
data.draw_scene(axis, scenes.image(0), scenes.boxes[0], colours="gold")
sought = [scenes.labels[pid] for pid in scenes.labels], search.query_pids().max(), search.gallery(0).tolist()
learn, seek = data.load_person_search("cuhk_sysu", root, None, check=False)
data.write_prw(root / "prw", scenes, search)
data.write_cuhk_sysu("cuhk", learn, seek, progress=False)
several = [data.load_vtest_scenes(every=10, size=(288, 384)), *(data.load_scenes(split) for split in ("train", "test"))]
rendered = data.render_person_search("prw", "simulated", people=(10, 6), scenes=(20, 10))["expected"]
data.write_prw(root / "prw", search, scenes)  # type: ignore[arg-type]
data.load_scenes("test").labels  # type: ignore[attr-defined]
data.load_scenes(size=192)  # type: ignore[call-overload]

# segmentation
pixels, masks = data.load_segmentation(people=10, scenes=24, seed=1, size=(96, 128))
photos, marked = data.load_voc(root, "trainaug")
share = (masks == data.segmentation_classes("scenes").index("person")).float().mean() + len(photos) / marked[0].numel()
resized = data.load_voc(root, "val", size=(96, 128), check=False)[1].float()
photos = data.load_segmentation("voc2012", root, "val")[0]
data.render_voc(root / "voc", people=(10, 6), scenes=(8, 6), extra=16)["classes"]
data.load_voc(root)[0].shape  # type: ignore[attr-defined]
data.load_segmentation(scenes="24")  # type: ignore[call-overload]
