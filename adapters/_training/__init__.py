"""What the recipes share: the budget, low-rank weights, the loop that spends one on the other, and the card that says how it went."""
