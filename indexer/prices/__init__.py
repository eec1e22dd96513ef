"""The history of prices: which feeds stand behind an oracle, what they answered when, and what that tells of them."""
