"""What programs see: `DBOS`, the client, decorators, configuration. One line for each operation."""
