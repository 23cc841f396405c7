"""One module per library: each reads a stream the way its documentation shows and hands every item to `seen`."""
