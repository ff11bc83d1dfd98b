"""Reports as small as a book can be made of: chapter 3 run by `desk`, chapter 4 by `quick`, 6 never; a benchmark.

Pages have their chapter's own text, and results that `Report` and `Study` wrote.
"""

import re
from base64 import b64encode
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from matplotlib import pyplot
from PIL import Image

from scalable_arch.study.record import write_trials
from scalable_arch.study.reports import Picture, Report
from scalable_arch.study.tables import Study

root = Path(__file__).parents[1]
RNG = np.random.default_rng(0)


def trial(name, seed=0, **accuracies):
    "A record of a re-identification; `accuracies` of the parts of its feature."
    scores = lambda share: {
        metric: (RNG.random(300) < share * less).astype(int) for metric, less in (("R1", 1), ("mAP", 0.8))
    }
    queries = {part: scores(share) for part, share in accuracies.items()}
    means = {part: {metric: float(hits.mean()) for metric, hits in found.items()} for part, found in queries.items()}
    return {
        "trial": name,
        "config": {"kind": "reid", "model": "han_small", "train": {"world": "plaza"}, "seed": seed},
        "metrics": {"test": means},
        "versions": {"kind.reid": 1},
        "wall_seconds": 12.0,
        "date": "2026-11-21 10:00 UTC",
        "commit": "abcdef0",
        "processor": "toy processor, AVX2",
        "queries": {
            "test": {part: {metric: hits.tolist() for metric, hits in found.items()} for part, found in queries.items()}
        },
        "people": {"test": {part: np.repeat(range(60), 5).tolist() for part in queries}},
    }


def shown(table):
    "What a cell shows of a table."
    return [nbformat.v4.new_output("execute_result", {"text/html": table._repr_html_()}, execution_count=1)]


def drawn(picture):
    "What a cell shows of a `Picture`."
    svg = picture.path.suffix == ".svg"
    data = picture.path.read_text() if svg else b64encode(picture.path.read_bytes()).decode()
    kind = "image/svg+xml" if svg else "image/jpeg"
    said = nbformat.v4.new_output("stream", text=f"{picture}\n")
    return [nbformat.v4.new_output("display_data", {kind: data, "text/plain": str(picture)}), said]


def photograph(report, name, text, rows, columns, size):
    "A JPEG of panels with white between."
    pixels = RNG.integers(0, 200, (rows * size[0], columns * size[1], 3), dtype=np.uint8)
    for down in range(rows):
        pixels[down * size[0] : down * size[0] + 6] = 255
    for across in range(columns):
        pixels[:, across * size[1] : across * size[1] + 6] = 255
    path = report.folder / "figures" / f"{name}.jpg"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return Picture(report.caption(text), path)


def executed(source, report, results):
    "Write a notebook as executed; `results`: {part of a cell's source, a pattern: its outputs}."
    notebook = nbformat.read(root / "nbs" / source, as_version=4)
    for pattern, outputs in results.items():
        cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and re.search(pattern, cell.source))
        cell.outputs = outputs
    nbformat.write(notebook, report.folder / source)


def han(reports):
    "Chapter 3, run by `desk`."
    report = Report("ch3_han", "desk", root=reports, data="plaza", seeds=[0, 1, 2, 3])
    parts = [trial(f"0a0{seed}", seed, joint=0.9, **{"global": 0.5, "local": 0.5}) for seed in range(4)]
    rows = {"No Attention": trial("0b00", joint=0.7)} | {
        row: trial(f"0b0{n}", joint=0.3) for n, row in enumerate(("SSA", "SCA", "HRA"), 1)
    }
    write_trials(report.folder, [*parts, *rows.values()])
    data = {"Market-1501": "plaza"}
    joined, alone = (Study(f"wei_li_thesis_t3_0{n}", report, data=data, versions=["model.han"]) for n in (3, 4))
    for row, part in {"Global": "global", "Local": "local", "Global+Local": "joint"}.items():
        joined.searched(parts, row=row, dataset="Market-1501", part=part)
    for row, record in rows.items():
        alone.searched([record], row=row, dataset="Market-1501")
    units = Study("wei_li_thesis_t3_07", report, data=data, versions=["model.han"])
    for row, flops in (("Depthwise", 708.6e6), ("Inception", 2090e6)):
        units.structural(flops, row=row, metric="FLOPs", tolerance=0.015)
    units.searched(parts, row="Depthwise", dataset="Market-1501")
    levels = Study("wei_li_thesis_f3_07", report, trials=parts[:1])
    attention = photograph(report, levels.name, f"{levels.headline()}; real people", 1, 7, (400, 90))
    levels.figure_file = f"figures/{levels.name}.jpg"
    ranked = photograph(report, "ranked_lists", "Ranked lists: real people", 6, 11, (132, 53))
    figure, axis = pyplot.subplots(figsize=(2, 1))
    axis.plot([1, 2], [3, 1])
    costs = pd.DataFrame({"FLOPs, M": [708.6]}, index=pd.Index(["HAN (Large)"], name="model"))
    results = {
        r"open_study\(\s*\"wei_li_thesis_t3_03": shown(joined.show()),
        r"open_study\(\s*\"wei_li_thesis_t3_04": shown(alone.show()),
        r"open_study\(\s*\"wei_li_thesis_t3_07": shown(units.show()),
        r"study\(\s*\"wei_li_thesis_f3_07": drawn(attention) + shown(levels.show()),
        r"report\.figure\(\s*\"ranked_lists": drawn(ranked),
        r"report\.figure\(\s*\"embeddings": drawn(report.figure("embeddings", figure, "Features of people")),
        r"report\.table\(\s*\"costs": shown(report.table("costs", costs, "Costs", digits=0)),
    }
    executed("ch3_han.ipynb", report, results)


def hdl(reports):
    "Chapter 4, run by `quick` only, its trials beside it."
    report = Report("ch4_hdl", "quick", root=reports, data="scenes")
    write_trials(report.folder, [trial("0c00", joint=0.5)])
    executed("ch4_hdl.ipynb", report, {})


def bench(reports):
    "A benchmark in the layout of old: files of a result beside the notebook, tables without a name."
    report = Report("bench", "train", root=reports)
    (report.folder / "step.csv").write_text("model,accuracy\nhan,0.123456\n")
    (report.folder / "step.md").write_text("| model |\n")
    table = pd.DataFrame({"accuracy": [0.1]}, index=pd.Index(["han"], name="model")).style.set_uuid("f0ca8")
    executed("bench_train.ipynb", report, {r"report\.table\(": shown(table)})


def make_reports(folder):
    "All of them, in `folder`; of chapter 5 there is but the notebook."
    for make in (han, hdl, bench):
        make(folder)
    executed("ch5_nge.ipynb", Report("ch5_nge", "desk", root=folder), {})
    return folder
