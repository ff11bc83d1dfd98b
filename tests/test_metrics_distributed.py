"Evaluation over several processes: the bits of one process, and clear ends when a part is broken or lost."

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from scalable_arch.metrics import evaluate
from scalable_arch.metrics.distributed import evaluate_sharded

COMMON = """
import json, os, signal, sys
import numpy as np, torch.distributed as dist
from scalable_arch.metrics.distributed import evaluate_sharded
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
problem = dict(np.load("problem.npz"))
cuts = [0, *json.loads(os.environ["CUTS"]), len(problem["gallery_pids"])]
shard = {k: v[cuts[rank]:cuts[rank + 1]] if k.startswith("gallery") else v for k, v in problem.items()}
"""

SCORE = (
    COMMON
    + """
for name, options in json.loads(os.environ["RUNS"]).items():
    result = evaluate_sharded(**{**shard, **options})
    arrays = {k: v for k, v in vars(result).items() if k != "protocol" and v is not None}
    np.savez(f"{name}-{rank}.npz", **arrays)
dist.destroy_process_group()
"""
)

MISTAKES = (
    COMMON
    + """
from scalable_arch.metrics import evaluate
broken = np.full_like(shard["gallery_features"], np.nan) if rank == 1 else shard["gallery_features"]
attempts = [dict(gallery_features=broken), dict(query_pids=shard["query_pids"] + rank),
            dict(gallery_pids=shard["gallery_pids"] + 1000),
            dict(max_rank=0), dict(gallery_camids=shard["gallery_camids"][rank:]), dict(block_mb=float("inf")),
            dict(query_camids=shard["query_camids"] * 0) if rank else dict(query_camids=None, gallery_camids=None)]
told = []
for wrong in attempts:
    try:
        evaluate_sharded(**{**shard, **wrong})
    except ValueError as error:
        told.append(str(error))
json.dump(told, open(f"told-{rank}.json", "w"))
dist.destroy_process_group()
"""
)

KILLED = (
    COMMON
    + """
from scalable_arch.metrics.tiles import FeatureDistances
if rank == 1:
    block, calls = FeatureDistances.block, []
    def die_later(self, *where):
        calls.append(where)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return block(self, *where)
    FeatureDistances.block = die_later
result = evaluate_sharded(**shard)
result.save("result.json")
"""
)


def problem(dtype=np.float32, num_query=300, num_gallery=5000, dim=520):
    rng = np.random.default_rng(0)
    pids, camids = rng.integers(0, 50, num_query + num_gallery), rng.integers(0, 4, num_query + num_gallery)
    features = (rng.standard_normal((50, dim))[pids] + 3 * rng.standard_normal((len(pids), dim))).astype(dtype)
    copies = num_gallery * 3 // 10
    features[-copies:] = features[num_query : num_query + copies]  # equal images in different shards
    pids[-num_gallery // 25 :] = -1
    return dict(
        query_features=features[:num_query],
        gallery_features=features[num_query:],
        query_pids=pids[:num_query],
        gallery_pids=pids[num_query:],
        query_camids=camids[:num_query],
        gallery_camids=camids[num_query:],
    )


def environment(**extra):
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **extra}


def start(folder, script, cuts, **extra):
    "One process a shard on the loopback address, without torchrun, so that each one's end can be seen."
    (folder / "script.py").write_text(script)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = len(cuts) + 1
    return [
        subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                RANK=str(rank),
                WORLD_SIZE=str(world),
                CUTS=json.dumps(cuts),
                **extra,
            ),
        )
        for rank in range(world)
    ]


def finish(processes):
    try:
        return [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("cuts, dtype", [([1234], np.float32), ([1, 3001], np.float32), ([2048, 4096], np.float64)])
def test_same_bits_as_one_process(tmp_path, cuts, dtype):
    whole = problem(dtype)
    np.savez(tmp_path / "problem.npz", **whole)
    runs = dict(
        plain={},
        lists=dict(top_k=25, ap="trapezoid", max_rank=7),
        crumbs=dict(block_mb=1.5, top_k=3),
        no_cameras=dict(query_camids=None, gallery_camids=None, top_k=3),
    )
    for stderr, code in finish(start(tmp_path, SCORE, cuts, RUNS=json.dumps(runs))):
        assert code == 0, stderr
    for name, options in runs.items():
        expected = evaluate(**{**whole, **options})
        assert 0.02 < expected.mAP < 0.98
        for rank in range(len(cuts) + 1):
            found = np.load(tmp_path / f"{name}-{rank}.npz")
            assert set(found) == {k for k, v in vars(expected).items() if k != "protocol" and v is not None}
            for key in found:
                assert np.array_equal(found[key], getattr(expected, key), equal_nan=key in ("ap", "inp")), (
                    name,
                    rank,
                    key,
                )


def test_a_broken_part_stops_all_with_one_sentence(tmp_path):
    np.savez(tmp_path / "problem.npz", **problem(num_query=20, num_gallery=300, dim=8))
    for stderr, code in finish(start(tmp_path, MISTAKES, [100, 150])):
        assert code == 0, stderr
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in range(3)]
    assert told[0] == told[1] == told[2]
    broken, other, strangers, setting, short, endless, cameras = told[0]
    assert broken.startswith("rank 1: gallery_features row 0 is not finite")
    assert other.startswith("rank 1 was given other queries, settings")
    assert strangers.startswith("no query has a match from another camera: query ids")
    assert setting == "rank 0: max_rank must be a whole number, at least 1, not 0"
    assert endless == "rank 0: block_mb must be a positive and finite number of megabytes, not inf"
    assert cameras.startswith("rank 1 was given other queries, settings")
    assert short.startswith("rank 1: gallery_camids has shape (49,), but there are 50 gallery features")


@pytest.mark.parametrize("cuts", [[2000], [1000, 2000]])
def test_a_killed_process_gives_a_clear_error_and_no_result(tmp_path, cuts):
    np.savez(tmp_path / "problem.npz", **problem())
    ends = finish(start(tmp_path, KILLED, cuts))
    assert ends[1][1] == -9
    for rank, (stderr, code) in enumerate(ends):
        if rank != 1:
            assert (
                code == 1
                and f"ConnectionError: evaluation stopped on rank {rank} of {len(ends)}: another process was lost"
                in stderr
            )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["problem.npz", "script.py"]


def test_torchrun_ends_when_a_process_is_killed(tmp_path):
    np.savez(tmp_path / "problem.npz", **problem())
    (tmp_path / "script.py").write_text(KILLED)
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"],
        cwd=tmp_path,
        env=environment(CUTS="[2000]"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode != 0 and not (tmp_path / "result.json").exists()


def test_needs_a_process_group():
    with pytest.raises(ValueError, match="^evaluate_sharded needs a process group: start the script with torchrun"):
        evaluate_sharded(**problem(num_query=5, num_gallery=20, dim=4))


def test_a_result_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    result = evaluate(**problem(num_query=5, num_gallery=200, dim=4))
    saved = json.loads(result.save(tmp_path / "result.json").read_text())
    assert saved["mAP"] == result.mAP and len(saved["ap"]) == 5 and saved["protocol"]["ties"] == "gallery order"
    before = (tmp_path / "result.json").read_text()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        result.save(tmp_path / "result.json")
    assert (tmp_path / "result.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
