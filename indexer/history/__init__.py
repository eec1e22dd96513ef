"""What each snapshot adds to the past: health, interest, prices and totals, in the transaction that commits it.

Doors: `history.movements` lists what positions did; `accrual` measures interest, `trends` keeps markets and the book.
"""
