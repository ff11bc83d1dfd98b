"Executable companion to *Scalable Deep Learning Architecture Design*: models, metrics and data for person re-identification."
__version__ = "0.1.0"

from scalable_arch.models import create_model, list_models, load, save

__all__ = ["__version__", "create_model", "list_models", "load", "save"]
