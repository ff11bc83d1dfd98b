"Scores of retrieval, detection, person search and clusterings; re-ranking and nearest neighbours in blocks."

from scalable_arch.metrics.clusters import (
    ClusterScores,
    cluster_dbscan,
    dbscan_eps,
    score_clusters,
    self_jaccard,
    silhouettes,
)
from scalable_arch.metrics.detection import DetectionResult, evaluate_detection
from scalable_arch.metrics.neighbours import build_index, dimension_study, expand_queries, recall, search
from scalable_arch.metrics.person_search import PersonSearchResult, evaluate_person_search
from scalable_arch.metrics.protocols import PROTOCOLS, TrackProtocol, evaluate_tracks
from scalable_arch.metrics.reciprocal import RerankedDistances, rerank
from scalable_arch.metrics.retrieval import RetrievalResult, evaluate, multi_query, plot_ranked_list
from scalable_arch.metrics.segmentation import SegmentationResult, evaluate_segmentation

__all__ = [
    "ClusterScores",
    "DetectionResult",
    "PROTOCOLS",
    "PersonSearchResult",
    "RerankedDistances",
    "RetrievalResult",
    "SegmentationResult",
    "TrackProtocol",
    "build_index",
    "cluster_dbscan",
    "dbscan_eps",
    "dimension_study",
    "evaluate",
    "evaluate_detection",
    "evaluate_person_search",
    "evaluate_segmentation",
    "evaluate_tracks",
    "expand_queries",
    "multi_query",
    "plot_ranked_list",
    "recall",
    "rerank",
    "score_clusters",
    "search",
    "self_jaccard",
    "silhouettes",
]
