"""How annotations are checked at run time."""

from beartype import BeartypeConf, beartype

# As in PEP 484, an int is accepted for a float.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
