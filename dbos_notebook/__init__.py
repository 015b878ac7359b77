"""Durable workflows in Jupyter: write them in cells, watch them, explore what failed, and repair it.

Stands on the public API of `dbos` alone.
"""
