"""The test lab: real brokers (and later an engine, a registry and SSH machines) on this box."""
