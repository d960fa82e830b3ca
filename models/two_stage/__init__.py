"""The family of two-stage networks: OIM, NAE, NAE+, SeqNet and GLCNet."""

from models.base import Family
from models.two_stage.build import build
from models.two_stage.releases import RELEASES

FAMILY = Family(build=build, key_prefixes=("stem.", "detection_head.", "search_head."), releases=RELEASES)
