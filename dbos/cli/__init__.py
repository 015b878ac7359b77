"""The command `dbos`: words on a command line become calls of the public API, and what they return becomes text."""
