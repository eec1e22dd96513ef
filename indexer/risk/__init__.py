"""Pure judgement of positions: health, liquidation prices, what-if.

Doors: `evaluate.evaluate_all` makes the rows of a snapshot; `liquidation.outlook` says what could liquidate one position;
`simulate.simulate` and `simulate.sweep` apply a `scenario.Scenario` of prices, thresholds or time to a whole book.
"""
