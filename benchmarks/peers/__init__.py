"""The peers of the ingest benchmark, each as its own documentation advises; they run in an environment of their own.

Each reads the whole topic with one process and writes each full window of each cast under the key
`w:<cast>:<start in epoch ms>`: float32 rows, little-endian.
"""
