"""`groundglass screen`: an archive of scans, one row for each, exactly once, whatever dies on the way.

places    where inputs come from: folders, zips, lists, manifests, S3
discover  files -> ledger, headers only, and which files make a scan
ledger    what is known, in one SQLite file: files, items, results
work      one item -> one answer: the only code that answers, on this machine and on every other
attendant starts a child, feeds it, and replaces it when it hangs or dies
cluster   attendants on the workers of dask.distributed
run       lock, discover, answer, finish
tables    JSON Lines, CSV and Parquet
summary   the page and the manifest
"""
