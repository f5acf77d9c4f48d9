"""The chapters of docs/results.md: each is a function that runs its experiments and writes them."""
