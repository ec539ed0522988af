"""The page at `/`: HTML, script and style sheet."""
