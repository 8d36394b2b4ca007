"""How annotations are checked at run time."""

from beartype import BeartypeConf, beartype

# As PEP 484 has it, an int is welcome where a float is.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
