"""Scores of person search: how well people are detected, and how well a person is found again."""

from utils.evaluation.companions import CompanionVoting
from utils.evaluation.detection import evaluate_detection, evaluate_detection_by_height, precision_recall
from utils.evaluation.filtering import filtered_share
from utils.evaluation.ranked import Ranking, rank_search
from utils.evaluation.ranking import BLOCK_MB, Gallery
from utils.evaluation.same_person import evaluate_same_person
from utils.evaluation.search import evaluate_search

__all__ = [
    "BLOCK_MB",
    "CompanionVoting",
    "Gallery",
    "Ranking",
    "evaluate_detection",
    "evaluate_detection_by_height",
    "evaluate_same_person",
    "evaluate_search",
    "filtered_share",
    "precision_recall",
    "rank_search",
]
