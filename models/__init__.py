"""Person-search networks, assembled from parts with one job each."""

from models.build import build_model

__all__ = ["build_model"]
