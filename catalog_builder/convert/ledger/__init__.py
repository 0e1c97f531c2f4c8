"""The conversion ledger: outputs and sources of each tile-year, with sizes, hashes and statistics.

A ledger is a folder of JSON-lines files, **one per run and shard**, so any number of processes on any
number of machines write at once without a lock: each appends to a file of its own, one whole line per
tile-year in one ``write``, flushed to disk. A process killed at any moment leaves at most one incomplete
last line, which readers skip. Readers merge all files; of several rows for one job the latest
``finished`` wins, and a failed row never hides the files of an earlier good one from anybody but the
next run, which tries again.

:func:`~catalog_builder.convert.ledger.table.read_table` returns it as an Arrow table.
"""
