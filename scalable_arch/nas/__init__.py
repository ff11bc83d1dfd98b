"""Neural architecture search: operations, genotypes, networks made from them, supernet and the search itself."""
