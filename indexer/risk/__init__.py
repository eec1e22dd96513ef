"""Pure judgement of positions: health, liquidation prices, what-if.

Doors: `evaluate.evaluate_all` makes the rows of a snapshot; `liquidation.outlook` says what could liquidate one position;
`simulate.load` takes a book from the file, `simulate.simulate` and `simulate.sweep` change its prices, thresholds or time as
a `scenario.Scenario` says.
"""
