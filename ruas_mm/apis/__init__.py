"""What users call: the command line tools' common part."""
