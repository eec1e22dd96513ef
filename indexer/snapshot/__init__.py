"""One deployment at one block: what is known of it, what is read anew, and the rows. Asks through the reader it is given.

Doors: `known.KnownDeployment` has the steps from the contracts to rows; `tracked.TrackedDeployment` is one that a file keeps.
"""
