"""Cells that are steps: what a cell reads and gives, its record, and several of them as one workflow."""
