"Retrieval scores and search: evaluation and re-ranking in blocks."

from scalable_arch.metrics.reciprocal import RerankedDistances, rerank
from scalable_arch.metrics.retrieval import RetrievalResult, evaluate, multi_query, plot_ranked_list

__all__ = ["RerankedDistances", "RetrievalResult", "evaluate", "multi_query", "plot_ranked_list", "rerank"]
