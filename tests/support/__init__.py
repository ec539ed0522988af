"""Test support: tiny models, an independent reference of them, a thin driver of the C library."""
