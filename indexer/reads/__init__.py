"""What contracts answer at one block, many questions a request. Knows no contract.

Doors: `multicall.PinnedReader` is the reader that adapters are given; `lockstep.side_by_side` lets several tasks read
together.
"""
