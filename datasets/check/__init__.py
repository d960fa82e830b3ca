"""Find all that is wrong with a dataset in one pass."""

from datasets.check.run import DatasetCheck, check_dataset

__all__ = ["DatasetCheck", "check_dataset"]
