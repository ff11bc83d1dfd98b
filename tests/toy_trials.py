"Kinds of trial for tests, in a module of their own because worker processes must be able to import them."

import hashlib
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from scalable_arch.study.kind import Kind
from scalable_arch.train import fit

chance = torch.Generator().manual_seed(0)
LABELS = torch.arange(33) % 4
COLOURS = torch.tensor([[170, 100, 100], [100, 170, 100], [100, 100, 170], [150, 150, 100]])
IMAGES = (COLOURS[LABELS].view(-1, 3, 1, 1) + torch.randint(-80, 80, (33, 3, 8, 6), generator=chance)).byte()


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        embedding = self.conv(x).mean((2, 3))
        return (
            SimpleNamespace(logits=(self.head(embedding),), embeddings=(embedding,))
            if self.training
            else F.normalize(embedding)
        )


def train(config, *, checkpoint, given, progress):
    """A real training of a tiny network, all of whose bits go into the metrics.

    `given`: signs, a folder in which each epoch leaves an empty file; pause, seconds after each epoch; hold, an
    epoch after which it waits to be killed; stop, an epoch after which it fails. With `kill` in the configuration its
    process is killed after the second epoch, the first time.
    """

    def after_epoch(epoch):
        if "signs" in given:
            signs = Path(given["signs"])
            (signs / f"{config['width']}-{epoch['epoch']}-{os.getpid()}").touch()
            if config.get("kill") and epoch["epoch"] == 2 and not (signs / "killed").exists():
                (signs / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if epoch["epoch"] == given.get("stop"):
            raise OSError("stopped")
        time.sleep(given.get("pause", 0) if epoch["epoch"] != given.get("hold") else 60)

    torch.manual_seed(config["seed"])
    net = Net(config["width"])
    history = fit(
        net,
        IMAGES,
        LABELS,
        epochs=config["epochs"],
        batch_size=16,
        milestones=(3,),
        lr=0.1,
        flip=True,
        erasing=True,
        seed=config["seed"],
        checkpoint=checkpoint,
        progress=progress,
        on_epoch=after_epoch,
    )
    bits = hashlib.sha256(b"".join(x.numpy().tobytes() for x in net.state_dict().values())).hexdigest()
    for epoch in history:
        del epoch["seconds"]
    return {"metrics": {"loss": history[-1]["loss"], "bits": bits}, "curves": history}


def count_down(config, *, checkpoint, given, progress):
    """Counts from `start` down to 0, with a score for each step.

    `given`: count, a file that gets a letter for each trial that is run.
    """
    if "count" in given:
        with open(given["count"], "a") as file:
            file.write("x")
    steps = list(range(config["start"], -1, -1))
    scores = {"queries": {"test": {"joint": {"R1": steps}}}, "people": {"test": {"joint": steps}}}
    return {"metrics": {"steps": len(steps)}} | (scores if config.get("scores") else {})


def fail(config, *, checkpoint, given, progress):
    raise ValueError(f"the network does not like seed {config['seed']}")


def not_json(config, *, checkpoint, given, progress):
    return {"metrics": {"loss": config["seed"] * torch.ones(1)}}


def trained_versions(config):
    return ["recipe.retrieval", "loss.cross_entropy"]


def counted_versions(config):
    return ["kind.tabular"]


def title(found):
    return "a toy"


def toy(name, run, versions=counted_versions):
    return Kind(name, run=run, versions=versions, about=title, said=title)


KINDS = {
    "train": toy("train", train, trained_versions),
    "count": toy("count", count_down),
    "fail": toy("fail", fail),
    "not_json": toy("not_json", not_json),
}
