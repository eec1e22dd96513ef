"""What an endpoint can do, asked before a sync relies on it; opens no database and changes nothing.

Doors: `examination.examine` asks one endpoint; `recommended.chain_table` says what a chain's table should be after that;
`here.packages` looks at what is installed.
"""
