"""What the methods of the tables are called where they are read."""

__all__ = ["METHOD_NAMES"]

METHOD_NAMES = {
    "smobf": "SMOBF",
    "exact": "best known within a budget",
    "weight_sweep": "weight sweep, no budget",
    "greedy_with_replacement": "greedy with replacement",
    "forward_greedy": "forward greedy",
    "top_k": "top k, averaged",
    "best_single": "best single model",
}
