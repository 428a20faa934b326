"""How large our images are and what a new model costs, beside BentoML's own; run by `python -m tests.sizes`."""
