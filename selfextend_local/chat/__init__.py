"""A conversation about documents, without a terminal."""
