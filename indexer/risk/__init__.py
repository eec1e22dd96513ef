"""Pure judgement of positions: health, liquidation prices, what-if.

Doors: `evaluate.evaluate_all` makes the rows of a snapshot; `liquidation.outlook` says what could liquidate one position;
`simulate.simulate` and `simulate.sweep` change the prices, thresholds or time of a whole book as a `scenario.Scenario` says.
"""
