"""Neural architecture search: operations, genotypes, networks made from them, supernet and the search itself."""

from scalable_arch.nas.discrete import random_search, regularised_evolution, reinforce
from scalable_arch.nas.genotype import PUBLISHED, SPACES, Genotype, Space, derive, draw, genotype_cost, random_genotype
from scalable_arch.nas.networks import CifarNetwork, ImageNetNetwork, cell_costs
from scalable_arch.nas.operations import make_operation
from scalable_arch.nas.supernet import AlphaController, Supernet

__all__ = ["PUBLISHED", "SPACES", "AlphaController", "CifarNetwork", "Genotype", "ImageNetNetwork", "Space", "Supernet", "cell_costs", "derive",
           "draw", "genotype_cost", "make_operation", "random_genotype", "random_search", "regularised_evolution", "reinforce"]
