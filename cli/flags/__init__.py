"""The values that flags, variables and the configuration file take."""
