"""One shape: Upbit's three spellings become the models, exactly and checked.

`fields` is the table of spellings, `values` how one value is read, `unifier` the tolerant reader of decoded
messages, `typed` the fast decoders made from the same table; `stream` and `rest` are the two doors for bytes.
"""
