"""Running untrusted programs: standard library only, usable on its own."""
