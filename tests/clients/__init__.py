"""Scripts that other people's clients run against a unit, each in an environment of its own."""
