"""How fast does the training engine train, beside peers with the same model? See `docs/benchmarks.md`."""
