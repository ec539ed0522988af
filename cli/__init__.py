"""The command line: a thin edge over selfextend_local. stdout is the answer, everything else goes to stderr."""
