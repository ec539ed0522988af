"""Tools for whoever writes the patches. The backend imports nothing from here."""
