"""Model files that somebody else wrote, looked at without loading them.

`kinds` says which serializer wrote a file, `examine` what in it must not be loaded; `apart` does that in a process of
its own. Standard library only: the orchestrator looks at a model before it goes into a bundle, a unit at one that is
uploaded to it. A tripwire, not a wall: what holds is that a model is loaded in the sandbox of its step only.
"""
