"""The conversion ledger: what was converted from what, with sizes, hashes and statistics.

A ledger is a folder of JSON-lines files, **one per run and shard**, so any number of processes on any
number of machines write at once without a lock: each appends to a file of its own, one whole line per
tile-year in one ``write``, flushed to the disk. A process killed at any moment leaves at most one torn
last line, which readers pass over. Readers merge all files; of several rows for one job the latest
``finished`` wins, and a failed row never hides the files of an earlier good one from anybody but the
next run, which tries again.

:func:`~catalog_builder.convert.ledger.table.read_table` gives it as an Arrow table.
"""
