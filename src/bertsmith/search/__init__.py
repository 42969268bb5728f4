"""`bertsmith search`: the passages of a folder that mean what a query says, from vectors in a real store.

    folder -> passages -> index -> store (sqlite | postgres)
                                     |
    query -> model or quick -------> nearest -> rerank -> hits

Nothing here imports torch before something has to be embedded: of an unchanged folder that is the query alone.
"""
