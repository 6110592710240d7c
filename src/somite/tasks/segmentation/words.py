"""What a segmentation's numbers mean, in words."""

from ..view import HIGHER, LOWER, Meaning

MEANINGS = {
    "dice": Meaning("Dice", HIGHER, "overlap of mask and truth: twice what they share, over the sum of their sizes"),
    "iou": Meaning("IoU", HIGHER, "overlap again: what they share over what either covers"),
    "nsd": Meaning("NSD at {tolerance}", HIGHER, "share of both surfaces that lies within {tolerance} of the other surface"),
    "hd95": Meaning("HD95 ({unit})", LOWER, "95th percentile of the distances between the surfaces, of the worse direction", share=False),
    "precision": Meaning("Precision", HIGHER, "share of the mask that is truly foreground"),
    "recall": Meaning("Recall", HIGHER, "share of the true foreground that the mask finds"),
    "brier": Meaning("Brier", LOWER, "mean squared error of the probability"),
    "nll": Meaning("NLL (nats)", LOWER, "mean negative log-likelihood, probabilities clipped at 1e-6", share=False),
    "ece": Meaning("ECE", LOWER, "gap between probability and observed share within one case; easy background dominates it"),
    "ece_foreground": Meaning(
        "ECE, foreground",
        LOWER,
        "the same where truth or mask is foreground; the truth chooses that region, so even a perfect model shows a gap",
    ),
    "ece_boundary": Meaning("ECE, boundary", LOWER, "the same within {boundary} px of the truth's edge, where calibration is hard"),
    "nqm": Meaning("NQM", "lower is surer", "spread of the members in proportion to what they segment; says nothing of error", share=False),
    "disagreement": Meaning("Disagreement", "lower is surer", "1 - mean Dice between pairs of members; says nothing of error"),
}
POOLED = {
    "ece_all": Meaning("ECE, pooled", LOWER, "gap between probability and observed share over the pixels of all cases together"),
    "ece_foreground": Meaning("ECE, foreground, pooled", LOWER, "the same in the foreground region (a perfect model shows a gap here too)"),
    "ece_boundary": Meaning("ECE, boundary, pooled", LOWER, "the same in the band around the truth's edge"),
    "mce_all": Meaning("MCE, pooled", LOWER, "the widest gap of any bin, over the pixels of all cases together"),
}
SIGNS = {
    "members": "the agreement of the members (mean Dice of all pairs)",
    "convergence": "how little the mask changes when cells go on (Dice after a fifth more updates)",
    "expected": "the Dice that the probabilities themselves expect",
}
