"""Rules: bodies of one or two relations, over facts and content, that predict a head relation."""
