"""Bytes, committed folders, tables that grow, and the keys that name them. Imports config.

artifacts.py   references, manifests, digests
filesystem.py  bytes to and from a file system that may fail
verify.py      files compared with the manifest as they are read
folders.py     the store: committed folders
copies.py      local copies of folders
schemas.py     the Arrow schema of each table, and the digest of rows
parquet.py     tables as Parquet
growing.py     tables that grow by parts, and slices of them
columns.py     single columns of slices, for figures over a table
cover.py       which parts cover what a stage wants
drafts.py      stage keys, and the draft that is committed under one
cost.py        what it cost to compute an artifact
runs.py        the record of a run
scratch.py     local working folders
"""
