"Kinds of trial: how one of each task is run, which scores it has, how it is said in a line, and what it rests on."

from scalable_arch.kinds.adaptation import ADAPTATION
from scalable_arch.kinds.adaptation import CLUSTERING
from scalable_arch.kinds.cell_search import SEARCH
from scalable_arch.kinds.classification import CLASSIFICATION
from scalable_arch.kinds.msinet_search import MSINET_SEARCH
from scalable_arch.kinds.person_search import PERSON_SEARCH
from scalable_arch.kinds.pruning import PRUNING
from scalable_arch.kinds.reid import REID
from scalable_arch.kinds.reid_search import REID_SEARCH
from scalable_arch.kinds.segmentation import SEGMENTATION
from scalable_arch.kinds.tabular import TABULAR
from scalable_arch.kinds.video import VIDEO

KINDS = {
    "reid": REID,
    "reid_search": REID_SEARCH,
    "person_search": PERSON_SEARCH,
    "classification": CLASSIFICATION,
    "search": SEARCH,
    "segmentation": SEGMENTATION,
    "tabular": TABULAR,
    "pruning": PRUNING,
    "msinet_search": MSINET_SEARCH,
    "video": VIDEO,
    "clustering": CLUSTERING,
    "adaptation": ADAPTATION,
}

__all__ = [
    "ADAPTATION",
    "CLASSIFICATION",
    "CLUSTERING",
    "KINDS",
    "MSINET_SEARCH",
    "PERSON_SEARCH",
    "PRUNING",
    "REID",
    "REID_SEARCH",
    "SEARCH",
    "SEGMENTATION",
    "TABULAR",
    "VIDEO",
]
