"Retrieval scores and search: evaluation, re-ranking and nearest neighbours in blocks."

from scalable_arch.metrics.neighbours import build_index, dimension_study, expand_queries, recall, search
from scalable_arch.metrics.reciprocal import RerankedDistances, rerank
from scalable_arch.metrics.retrieval import RetrievalResult, evaluate, multi_query, plot_ranked_list

__all__ = ["RerankedDistances", "RetrievalResult", "build_index", "dimension_study", "evaluate", "expand_queries", "multi_query",
           "plot_ranked_list", "recall", "rerank", "search"]
