"""`selfextend-chat`: the conversation in a terminal, one answer for a script, and the slash commands."""
