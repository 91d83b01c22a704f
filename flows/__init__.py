"""What runs: one flow a file."""
