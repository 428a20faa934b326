"""What goes wrong in a release, done on purpose, on real machines, while its users go on asking (R17–R25)."""
