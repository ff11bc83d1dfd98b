"""What the tests of every chapter have in common: one `smoke` run that all tests of a file share, and the cells that a
chapter's plan of trials needs."""

import ast
import json
import re
import resource
import shutil
import symtable
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import papermill
import pytest
import torch

from scalable_arch import data
from scalable_arch.data import scenes
from scalable_arch.study import chapter as chapter_module
from scalable_arch.study import trials as trials_module
from scalable_arch.study.chapter import PROFILE_NAMES, Chapter, WrongParameter, compare_trials
from scalable_arch.study.record import leaves, read_trials
from scalable_arch.study.tables import read_studies

root = Path(__file__).parents[1]
CHAPTERS = sorted(path.stem for path in (root / "nbs").glob("ch*.ipynb"))


def read_chapter(name):
    "The notebook of a chapter."
    return nbformat.read(root / "nbs" / f"{name}.ipynb", 4)


def cells_from_parameters(name):
    "Texts of a chapter's code cells, from the one with the tag `parameters` on."
    cells = [cell for cell in read_chapter(name).cells if cell.cell_type == "code"]
    first = next(at for at, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    return [cell.source for cell in cells[first:]]


def use_it(cells):
    "Number of the cell that begins the section `Use it`."
    return next(at for at, cell in enumerate(cells) if re.match(r"## \d+\. Use it", cell.source))


# ---- running a chapter


class Run:
    "A chapter that was run with papermill into a folder of its own: reports in `reports/`, cache in `cache/`."

    def __init__(self, name, folder, profile="smoke"):
        self.name, self.folder, self.record = name, folder, folder / "reports" / name
        self.shown = self.record / profile

    def trials(self):
        "{name: record} of all trials."
        return read_trials(self.record)

    def studies(self):
        "{printed table or figure: its study}."
        return {study["study"]: study for study in read_studies(self.shown)}

    def cell(self, study, row, metric, **where):
        "The one cell of a study in a row and of a metric that has these other values too."
        cells = [cell for cell in self.studies()[study]["cells"] if (cell["row"], cell["metric"]) == (row, metric)]
        [found] = [cell for cell in cells if all(cell[key] == value for key, value in where.items())]
        return found

    def tables(self):
        "{name: text} of all tables; a commit made between two runs is none of their business."
        written = {path.name: path.read_text() for path in self.shown.iterdir() if path.suffix in (".csv", ".md")}
        return {name: re.sub(r"commit \w+\+?", "commit", text) for name, text in written.items()}


def places(folder, worlds):
    "Environment of a run with reports and cache in `folder`; rendered worlds are shared, the video is the usual one."
    cache = folder / "cache"
    cache.mkdir(parents=True)
    (cache / "worlds").symlink_to(worlds)
    try:
        video = data.get_dataset("vtest", progress=False)
        (cache / video.name).symlink_to(video)
    except OSError:
        pass  # chapters go on without it
    return {"SCALABLE_ARCH_CACHE": str(cache), "SCALABLE_ARCH_REPORTS": str(folder / "reports")}


def run_chapter(name, folder, worlds, **parameters):
    "Run a chapter but for `Use it`, which has a test of its own, and say what it took. Returns its `Run`."
    notebook = read_chapter(name)
    notebook.cells = notebook.cells[: use_it(notebook.cells)]
    nbformat.write(notebook, folder / "in.ipynb")
    parameters = {"profile": "smoke", **parameters}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in places(folder, worlds).items():
            patch.setenv(key, value)
        files = [str(folder / file) for file in ("in.ipynb", "out.ipynb")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        papermill.execute_notebook(*files, parameters, kernel_name="python3", progress_bar=False, cwd=str(folder))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name} with {parameters}: {seconds:.0f} CPU seconds, imports included")
    return Run(name, folder, parameters["profile"])


def write_cifar(folder):
    "Copies of 100 and 100 images of noise in the layouts of CIFAR-10 and CIFAR-100, in one folder."
    rng = np.random.default_rng(0)
    for name, place, classes in (("cifar10", "cifar-10-batches-bin", 10), ("cifar100", "cifar-100-binary", 100)):
        draw = lambda: (rng.integers(0, 256, (100, 3, 32, 32), dtype=np.uint8), np.arange(100) % classes)
        data.write_classification(name, folder / place, draw(), draw())


# ---- the plan of a chapter's trials, without what it shows


def changed(statement):
    "Names whose values a statement changes in place: x[...] = y, x.y = z, x |= y, x.append(y), also inside loops."
    for node in ast.walk(statement):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            targets = [node.value.func]
        for target in targets:
            plain = isinstance(target, ast.Name) and not isinstance(node, ast.AugAssign)
            while isinstance(target, (ast.Attribute, ast.Subscript)):
                target = target.value
            if isinstance(target, ast.Name) and not plain:
                yield target.id


def flow(statement):
    "(names that a statement reads from before, names that it binds, names whose values it changes)."
    scopes = [symtable.symtable(ast.unparse(statement), "statement", "exec")]
    here = scopes[0].get_symbols()
    binds = {symbol.get_name() for symbol in here if symbol.is_assigned() or symbol.is_imported()}
    for scope in scopes:
        scopes += scope.get_children()
    inside = [symbol for scope in scopes[1:] for symbol in scope.get_symbols() if symbol.is_global()]
    reads = {symbol.get_name() for symbol in [*here, *inside] if symbol.is_referenced()}
    first = isinstance(statement, (ast.For, ast.With, ast.Try))  # these bind what they read themselves
    return reads - binds if first else reads, binds, set(changed(statement))


def plan_statements(cells):
    "Those of a chapter's statements that lead to its `chapter.run(...)`, these included: found backwards."
    wanted, kept = set(), []
    for statement in reversed([statement for cell in cells for statement in ast.parse(cell).body]):
        reads, binds, changes = flow(statement)
        if "chapter.run(" in ast.unparse(statement) or (binds | changes) & wanted:
            wanted = wanted - binds | reads | changes
            kept.append(statement)
    return kept[::-1]


def no_video(**_):
    "In place of the video's people and scenes, which decide no configuration: two persons on two visits."
    images = torch.zeros(4, 3, 16, 8, dtype=torch.uint8)
    return SimpleNamespace(crops=images, pids=torch.tensor([0, 0, 1, 1]), camids=torch.tensor([0, 1, 0, 1]))


def run_plan(name, **given):
    "Run what leads to a chapter's trials, and these, in this process, with other parameters; returns all its names."
    parameters, *cells = cells_from_parameters(name)
    names = {"__name__": name}
    exec(parameters, names)
    names |= given
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_vtest", no_video)
        patch.setattr(scenes, "load_vtest_scenes", no_video)
        for statement in plan_statements(cells):
            exec(ast.unparse(statement), names)
    return names


def unrecorded(name, profile, folder):
    "Configurations of a chapter's plan in a profile that are not on the committed record: those of its first such run."
    missing = []

    def note(configs, *_, **__):
        missing.extend(configs)
        raise LookupError("trials are not on record")

    (folder / name).mkdir()
    for file in ("trials.jsonl", "scores.npz"):
        if (root / "reports" / name / file).exists():  # a new chapter's record may be to come
            shutil.copy(root / "reports" / name / file, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALABLE_ARCH_REPORTS", str(folder))
        patch.setattr(trials_module, "run_missing", note)
        try:
            chapter = run_plan(name, profile=profile)["chapter"]
        except LookupError:
            assert missing
        else:
            assert chapter.records, "the plan is empty"
    return missing


# ---- the tests


def begin(name, *, left_over=None, **given):
    """The `Chapter` that a chapter begins with, as if `given` stood in a cell after its parameters; `left_over`: names
    that an earlier pass of all cells left in the kernel."""
    parameters, check, *_ = cells_from_parameters(name)
    names = {"__name__": name, **(left_over or {})}
    exec(parameters, names)
    names |= given
    exec(check, names)
    return names["chapter"]


class ChapterTests:
    """Tests of a chapter's `smoke` run: a file of tests names the `chapter`, its `studies` and `most_trials`.

    `waiting`: how many trials of a profile are not on record yet, where a plan is new and its record is made in parts.
    """

    waiting = {}

    def test_every_study_is_shown(self, smoke):
        assert set(self.studies) == set(smoke.studies())
        shown = (smoke.shown / "tables.md").read_text(encoding="utf-8")
        for name, study in smoke.studies().items():
            table, figure = f"## {name}\n" in shown, any((smoke.shown / "figures").glob(f"{name}.*"))
            assert table or figure, f"{name} is neither a table nor a figure"
            assert study["profile"] == "smoke"

    def test_tables_are_files_and_sections(self, smoke):
        sections = set(re.findall(r"^## (\w+)$", (smoke.shown / "tables.md").read_text(encoding="utf-8"), re.M))
        tables = {path.stem for path in smoke.shown.glob("*.csv")}
        assert "claims" in tables and tables <= sections
        assert sections - tables <= {path.stem for path in (smoke.shown / "figures").iterdir()}
        assert all(path.stat().st_size > 500 for path in (smoke.shown / "figures").iterdir())

    def test_a_stand_in_gives_no_verdict_on_a_printed_accuracy(self, smoke):
        cells = [cell for study in smoke.studies().values() for cell in study["cells"] if cell.get("stand_in")]
        assert cells and {cell["verdict"] for cell in cells} <= {"needs data", "not printed"}

    def test_smoke_is_small(self, smoke):
        trials = smoke.trials()
        assert 3 <= len(trials) <= self.most_trials
        for record in trials.values():
            facts = [(path.rpartition("/")[2], value) for path, value in leaves(record["config"])]
            assert all(value == 1 for key, value in facts if key == "epochs")
            assert all(value <= 6 for key, value in facts if key in ("people", "scenes", "shots"))
            assert all(value <= 60 for key, value in facts if key == "limit")
            assert all(np.prod(value) <= 100 * 130 for key, value in facts if key == "size")

    def test_compares_with_the_record(self, smoke, monkeypatch, capsys, tmp_path):
        "As a reader's run says at its end how its trials stand to the committed ones."
        monkeypatch.setattr(chapter_module, "checkout_root", lambda: smoke.folder)
        records = smoke.trials()
        Chapter.compare(SimpleNamespace(name=smoke.name, records=records, folder=tmp_path))
        said = capsys.readouterr().out.splitlines()
        assert f"Beside the record ({len(records)} trials" in said[0] and said[1:] == [
            f"{len(records):4d} equal to the bit"
        ]
        altered = json.loads(json.dumps(records))
        name, record = next(iter(altered.items()))
        path, value = next((path, value) for path, value in leaves(record["metrics"]) if isinstance(value, float))
        place = record["metrics"]
        for step in path.split("/")[:-1]:
            place = place[step]
        place[path.rpartition("/")[2]] = np.nextafter(value, 2)
        found = compare_trials(altered.values(), records)
        assert len(found["equal to the bit"]) == len(records) - 1
        assert [name] in found.values(), "the last bit of one score is seen"

    @pytest.mark.parametrize("profile", ["quick", "desk"])
    def test_every_trial_of_a_profile_is_on_record(self, profile, tmp_path):
        missing = unrecorded(self.chapter, profile, tmp_path)
        said = f"{len(missing)} trials of {profile} are not on record, the first: {missing[:1]}"
        assert len(missing) == self.waiting.get(profile, 0), said

    def test_one_call_begins_it_and_one_table_has_its_profiles(self):
        cells = cells_from_parameters(self.chapter)
        assert sum("= Chapter(" in source for source in cells) == 1
        asked = {
            ast.unparse(node)
            for source in cells[1:]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Name) and node.id == "profile" or ast.unparse(node) == "chapter.profile"
        }
        assert not asked, "a setting in PROFILES is the way to do something in one profile only"
        for profile in PROFILE_NAMES:
            assert begin(self.chapter, profile=profile).settings.keys() == begin(self.chapter).settings.keys()

    def test_a_second_pass_begins_as_the_first(self):
        settings = begin(self.chapter).settings
        left_over = {name: object() for name in settings} | {"_names_checked": True}
        assert begin(self.chapter, left_over=left_over).settings == settings
        assert begin(self.chapter, left_over=left_over, epochs=3).settings == settings | {"epochs": 3}

    @pytest.mark.parametrize(
        "wrong, sentence",
        [
            ({"profle": "smoke"}, "unknown parameter 'profle' (did you mean 'profile'?)"),
            ({"profile": "smke"}, "unknown value of profile, 'smke' (did you mean 'smoke'?)"),
            ({"profile": "smoke", "seed": "one"}, "parameter seed must be of type int, not 'one'"),
            ({"seeds": "0 x"}, "parameter seeds must be whole numbers from 0 on"),
            ({"epochs": -1}, "parameter epochs must be at least 0, not -1"),
            ({"workers": 1.5}, "parameter workers must be of type int, not 1.5"),
            ({"dataset": "imagnet"}, "unknown value of dataset, 'imagnet'"),
            ({"dataset": "a real one"}, "is read from a folder: say which"),
            ({"dataset": "a real one", "data_root": "nowhere"}, "data_root 'nowhere' is no folder"),
        ],
    )
    def test_a_wrong_parameter_is_one_sentence(self, wrong, sentence, monkeypatch, tmp_path):
        monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
        wrong = {key: self.real if value == "a real one" else value for key, value in wrong.items()}
        with pytest.raises(WrongParameter) as stop:
            begin(self.chapter, **wrong)
        assert sentence in str(stop.value) and "\n" not in str(stop.value)
