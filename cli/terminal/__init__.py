"""What is printed and typed: colours, tables, Markdown, the line editor, the clipboard."""
