"""The built-in protocols, one package each, found like any other through the entry points `lending_indexer.protocols`."""
