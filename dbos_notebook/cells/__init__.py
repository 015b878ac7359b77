"""Cells: what they define, what their code prints, and which runs wait for them."""
