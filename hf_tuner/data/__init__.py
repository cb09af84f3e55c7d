"""From files, folders and the Hub to checked rows."""
