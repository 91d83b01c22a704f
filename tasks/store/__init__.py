"""Bytes, committed folders, tables that grow, and the keys that name them. Imports config.

artifacts.py   references, manifests, digests
filesystem.py  bytes to and from a file system that may fail
hashed.py      hashes of files that this machine has read
listing.py     sizes and tags of files, without reading them
verify.py      files compared with the manifest as they are read
manifests.py   manifests read and checked
index.py       parts of a table known without a visit
folders.py     the store: committed folders
copies.py      local copies of folders
schemas.py     the Arrow schema of each table, and the digest of rows
parquet.py     tables as Parquet
growing.py     tables that grow by parts
slices.py      slices of tables, and the lists of them that stages commit
compaction.py  small parts merged into larger ones
cover.py       which parts cover what a stage wants
drafts.py      stage keys, and the draft that is committed under one
cost.py        what it cost to compute an artifact
runs.py        the record of a run
scratch.py     local working folders
"""
