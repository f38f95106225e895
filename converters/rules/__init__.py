"""Rules of keys, the layouts they lead to, and the ledger of a conversion."""
