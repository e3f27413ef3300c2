"""The book: chapters found, executed, shown. Knows no torch."""
