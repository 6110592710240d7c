"""What a classification's numbers mean, in words."""

from ..view import HIGHER, LOWER, Meaning

MEANINGS = {
    "correct": Meaning("Accuracy", HIGHER, "share of cases whose answer is right: the class, or all labels at once"),
    "p_truth": Meaning("Probability of the truth", HIGHER, "what was given to the true class; of labels, the geometric mean"),
    "nll": Meaning("NLL (nats)", LOWER, "mean negative log-likelihood, probabilities clipped at 1e-6", share=False),
    "brier": Meaning("Brier", LOWER, "squared error of the probabilities: half the sum over classes, or the mean over labels"),
}
POOLED = {
    "auc": Meaning("AUC", HIGHER, "how often a case of a class is ranked above one of the rest; mean over classes"),
    "map": Meaning("mAP", HIGHER, "average precision of a class's ranking; mean over classes"),
    "accuracy": Meaning("Accuracy of a label", HIGHER, "share of right answers, one label at a time; mean over labels"),
    "balanced_accuracy": Meaning("Balanced accuracy", HIGHER, "accuracy as if all classes were equally frequent"),
    "f1": Meaning("F1", HIGHER, "harmonic mean of sensitivity and precision; mean over classes"),
    "sensitivity": Meaning("Sensitivity", HIGHER, "share of a class's cases that are found; mean over classes"),
    "specificity": Meaning("Specificity", HIGHER, "share of the other cases that are not taken for it; mean over classes"),
    "kappa": Meaning(
        "Cohen's kappa", HIGHER, "agreement beyond what the answers' frequencies alone would give; below 0 is worse", share=False
    ),
    "kappa_quadratic": Meaning("Kappa, quadratic", HIGHER, "the same, where a mistake by two grades counts four times", share=False),
    "ece": Meaning("ECE", LOWER, "gap between how sure the answers are and how often they are right"),
}
LARGE = {"correct", "auc", "balanced_accuracy", "ece"}  # shown at the top of the page
