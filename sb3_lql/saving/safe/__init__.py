"""Model files that hold data only: nothing in them is run when they are loaded, whoever made them."""

from sb3_lql.saving.safe.models import algorithm_of, load_safe, save_safe

__all__ = ["algorithm_of", "load_safe", "save_safe"]
