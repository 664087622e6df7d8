"""The commands of `ensembleflow`, a module each, named after its verb: `add_command` adds it to the command line."""
