"""What `import indexer` promises to other programs; prints nothing, and asks a node only through `chain.connect`.

A file: `book.Book`. A chain: `chain.Connection`. What they answer: `positions.Position`, `wallet.Wallet`,
`simulation.Simulation`, `rows.Rows`.
"""
