"Kinds of trial: how one of each task is run, which scores it has, how it is said in a line, and what it rests on."
from scalable_arch.kinds.adaptation import ADAPTATION, CLUSTERING
from scalable_arch.kinds.cell_search import SEARCH
from scalable_arch.kinds.classification import CLASSIFICATION
from scalable_arch.kinds.person_search import PERSON_SEARCH
from scalable_arch.kinds.reid import REID
from scalable_arch.kinds.segmentation import SEGMENTATION
from scalable_arch.kinds.tabular import TABULAR

KINDS = {
    "reid": REID,
    "person_search": PERSON_SEARCH,
    "classification": CLASSIFICATION,
    "search": SEARCH,
    "segmentation": SEGMENTATION,
    "tabular": TABULAR,
    "clustering": CLUSTERING,
    "adaptation": ADAPTATION,
}

__all__ = ["ADAPTATION", "CLASSIFICATION", "CLUSTERING", "KINDS", "PERSON_SEARCH", "REID", "SEARCH", "SEGMENTATION",
           "TABULAR"]
