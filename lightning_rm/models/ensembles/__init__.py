"""Several reward models as one: members of a backbone, ensembles, averaged weights."""
