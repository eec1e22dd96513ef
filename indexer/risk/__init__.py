"""Pure judgement of positions: health, liquidation prices, what-if."""
