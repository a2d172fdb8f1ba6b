"""The command line: one module per group of verbs. Each verb imports what it uses when it runs."""
