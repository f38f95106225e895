"""Look at files without writing any: describe one, compare two, check a converted one."""
