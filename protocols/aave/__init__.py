"""What Aave V2 and V3 share: the maths and what a reserve is."""
