"""Person-search networks: the contract of a network, its families, and what families share."""

from models.build import build_model
from models.oim import OIMLoss

__all__ = ["OIMLoss", "build_model"]
