"""The built-in protocols: one package each, found by the entry points of `lending_indexer.protocols`, like any other's."""
