"Retrieval scores and search: evaluation in blocks."

from scalable_arch.metrics.retrieval import RetrievalResult, evaluate, multi_query, plot_ranked_list

__all__ = ["RetrievalResult", "evaluate", "multi_query", "plot_ranked_list"]
