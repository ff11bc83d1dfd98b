"One's own pictures: folders of people, galleries and videos searched, networks trained and scored, weights that ship."

from scalable_arch.own.demo import run_demo, write_vtest
from scalable_arch.own.features import open_model
from scalable_arch.own.folders import OwnPeople, read_people
from scalable_arch.own.lists import search_pictures
from scalable_arch.own.scores import Score, chance, compare_models, evaluate_folder, score, score_table
from scalable_arch.own.training import Trained, train_folder

__all__ = [
    "OwnPeople",
    "Score",
    "Trained",
    "chance",
    "compare_models",
    "evaluate_folder",
    "open_model",
    "read_people",
    "run_demo",
    "score",
    "score_table",
    "search_pictures",
    "train_folder",
    "write_vtest",
]
